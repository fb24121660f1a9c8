"""Perceptual hashes of encoded photographs, decoding included, against imagehash."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pycurate.kernels.phash import jpeg_luma, picture_hash
from pycurate.ops.dedup.decode import decode
from pycurate.ops.dedup.perceptual import perceptual_hashes
from pycurate.reference import phash as reference
from pycurate.reference.hamming import distances

IMAGES = Path(__file__).parent.parent.parent / "shared/data/imagenet_sample/images"
ROUNDS = 5
BAR = 4.0  # times imagehash, decoding included


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """500 JPEGs of at most 288 pixels."""
    if not IMAGES.is_dir():
        pytest.skip("the real data sets (../shared/data) are not here")
    return [path.read_bytes() for path in sorted(IMAGES.iterdir())]


def enlarged(photographs: list[bytes], longest: int) -> list[bytes]:
    """The first hundred at the size that pools are often downloaded in."""
    made = []
    for data in photographs[:100]:
        with Image.open(io.BytesIO(data)) as image:
            scale = longest / max(image.size)
            size = round(image.width * scale), round(image.height * scale)
            buffer = io.BytesIO()
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def theirs(images: list[bytes]) -> NDArray[np.uint64]:
    imagehash = pytest.importorskip("imagehash")
    found = []
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            found.append(reference.words_of(imagehash.phash(image).hash.ravel()))
    return np.stack(found)


def ours(images: list[bytes]) -> NDArray[np.uint64]:
    return perceptual_hashes(images, threads=1).codes


def on_all_processors(images: list[bytes]) -> NDArray[np.uint64]:
    return perceptual_hashes(images).codes


def pillow_luma(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft("L", (64, 64))
        return np.asarray(image)


def raced(
    images: list[bytes], ways: list[Callable[[list[bytes]], Any]], clock: Callable[[], float]
) -> dict[str, float]:
    """Median microseconds an image, in turn."""
    seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            started = clock()
            way(images)
            seconds[way.__name__].append(clock() - started)
    return {name: 1e6 * float(np.median(times)) / len(images) for name, times in seconds.items()}


@pytest.mark.gate
@pytest.mark.parametrize("longest", [288, 512, 1024])
def test_gate_phash(photographs: list[bytes], longest: int) -> None:
    """One thread each. At 288 pixels two thirds of the time is the entropy decoding, in which every bit counts."""
    images = photographs if longest == 288 else enlarged(photographs, longest)
    spent = raced(images, [ours, theirs], time.process_time)
    ratio = spent["theirs"] / spent["ours"]
    print(f"\n{longest} pixels: {spent['ours']:.0f} us of a processor, imagehash {spent['theirs']:.0f}: {ratio:.1f} x")
    assert ratio >= BAR


@pytest.mark.gate
def test_gate_phash_on_all_processors(photographs: list[bytes]) -> None:
    """As a user waits for it; imagehash has one thread. On one processor the figure is that of `test_gate_phash`."""
    spent = raced(photographs, [on_all_processors, theirs], time.perf_counter)
    ratio = spent["theirs"] / spent["on_all_processors"]
    print(f"\n288 pixels: {spent['on_all_processors']:.0f} us, imagehash {spent['theirs']:.0f}: {ratio:.1f} x")
    assert ratio >= BAR


@pytest.mark.gate
def test_gate_agreement(photographs: list[bytes]) -> None:
    """With the float64 definition on the picture in full size, and with imagehash."""
    found = ours(photographs)
    full = []
    for data in photographs:
        with Image.open(io.BytesIO(data)) as image:
            full.append(reference.words_of(reference.textbook_bits(np.asarray(image.convert("RGB")))))
    for name, codes in (("the definition at full size", np.stack(full)), ("imagehash", theirs(photographs))):
        apart = np.diagonal(distances(found, codes))
        share = float((apart <= 2).mean())
        print(f"\nwithin 2 bits of {name}: {100 * share:.1f} %, mean {apart.mean():.2f}, most {apart.max()}")
        assert share >= 0.95


@pytest.mark.benchmark(group="phash of a photograph: parts")
@pytest.mark.parametrize("part", ["decode at reduced scale", "the same by Pillow", "decode at full size", "hash"])
def test_bench_parts(benchmark: Any, photographs: list[bytes], part: str) -> None:
    images = photographs[:100]
    if part == "hash":
        pixels = [decode(data, 64) for data in images]
        benchmark.pedantic(lambda: [picture_hash(p) for p in pixels], rounds=ROUNDS)
    elif part == "the same by Pillow":
        benchmark.pedantic(lambda: [pillow_luma(data) for data in images], rounds=ROUNDS)
    else:
        least_side = 64 if part == "decode at reduced scale" else 1 << 14
        benchmark.pedantic(lambda: [decode(data, least_side) for data in images], rounds=ROUNDS)


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="phash of 1024 x 768 RGB pixels by instruction set")
@pytest.mark.parametrize("kind", ["phash", "dhash"])
def test_bench_by_instruction_set(benchmark: Any, kind: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    benchmark(picture_hash, pixels, kind)


@pytest.mark.usefixtures("isa")
@pytest.mark.benchmark(group="luma of 100 photographs at reduced scale by instruction set")
def test_bench_luma_by_instruction_set(benchmark: Any, photographs: list[bytes]) -> None:
    benchmark.pedantic(lambda: [jpeg_luma(data, 64, 1 << 30) for data in photographs[:100]], rounds=ROUNDS)
