from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pycurate.kernels.phash import HashBits, HashKind, picture_hash
from pycurate.reference import phash as reference

SHAPES = [(1, 2), (2, 1), (3, 5), (8, 9), (31, 33), (32, 32), (40, 7), (64, 64), (65, 200), (300, 129), (5, 1000)]
KINDS: list[HashKind] = ["phash", "dhash"]
SIZES: list[HashBits] = [64, 256]


def picture(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth shades and noise, as pictures have."""
    random = np.random.default_rng([height, width, channels, seed])
    y, x = np.mgrid[0:height, 0:width]
    shade = 128 + 60 * np.sin(x / (width / 5) + seed) + 50 * np.cos(y / (height / 3))
    noisy = shade[:, :, None] + random.normal(0, 12, (height, width, channels))
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dihedral", [False, True])
@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_hashes_equal_the_reference(channels: int, kind: HashKind, bits: HashBits, dihedral: bool) -> None:
    for height, width in SHAPES:
        pixels = picture(height, width, channels)
        expected = reference.picture_hash(pixels, kind, bits, dihedral)
        found = picture_hash(pixels, kind, bits, dihedral=dihedral)
        assert (found is None) == (expected is None), (height, width)
        if found is not None:
            assert found.dtype == np.uint64
            np.testing.assert_array_equal(found, expected, err_msg=f"{height} x {width}")


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("channels", [3, 4])
def test_every_colour_is_as_grey_as_the_reference_has_it(channels: int) -> None:
    random = np.random.default_rng(channels)
    pixels = random.integers(0, 256, (257, 101, channels), dtype=np.uint8)
    pixels[:3] = [255] * channels
    pixels[3:6] = 0
    for kind in KINDS:
        np.testing.assert_array_equal(
            picture_hash(pixels, kind, 256), picture_hash(np.ascontiguousarray(reference.grey(pixels)), kind, 256)
        )


def test_grey_is_that_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(reference.grey(pixels), np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_be_any_stride_apart(kind: HashKind) -> None:
    pixels = picture(120, 90, 3)
    wide = np.zeros((120, 200, 3), np.uint8)
    wide[:, 50:140] = pixels
    np.testing.assert_array_equal(picture_hash(wide[:, 50:140], kind), picture_hash(pixels, kind))
    np.testing.assert_array_equal(
        picture_hash(pixels[::-1], kind), picture_hash(np.ascontiguousarray(pixels[::-1]), kind)
    )
    grey = np.ascontiguousarray(pixels[:, :, :1])
    np.testing.assert_array_equal(picture_hash(grey, kind), picture_hash(grey[:, :, 0], kind))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_eight_ways_to_lay_a_picture_have_one_dihedral_hash(kind: HashKind, bits: HashBits) -> None:
    patches = np.random.default_rng(1).integers(0, 256, (15, 12, 3), dtype=np.uint8)
    pixels = np.repeat(np.repeat(patches, 10, axis=0), 8, axis=1)
    ways = [np.ascontiguousarray(way) for way in reference.dihedral(pixels)]
    hashes = {tuple(picture_hash(way, kind, bits, dihedral=True).tolist()) for way in ways}  # type: ignore[union-attr]
    assert len(hashes) == 1
    plain = [tuple(picture_hash(way, kind, bits).tolist()) for way in ways]  # type: ignore[union-attr]
    assert len(set(plain)) == 8
    assert hashes == {min(plain)}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_without_structure_has_no_hash(kind: HashKind) -> None:
    assert picture_hash(np.full((50, 60, 3), 200, np.uint8), kind) is None
    assert picture_hash(np.zeros((1, 1), np.uint8), kind) is None
    assert picture_hash(np.zeros((9, 9, 4), np.uint8), kind) is None  # transparent
    halves = np.zeros((50, 60), np.uint8)
    halves[:, 30:] = 1
    assert picture_hash(halves, kind) is not None


def test_no_cosine_lies_between_two_integers() -> None:
    """So that the table is the same whatever the cosine of the machine is."""
    for side in (8, 16):
        scaled = reference.COSINE_SCALE * reference.cosines(4 * side, side)
        assert (np.abs(scaled - np.floor(scaled) - 0.5) > 1e-3).all()


@pytest.mark.parametrize("bits", SIZES)
def test_integers_stand_for_the_textbook(bits: HashBits) -> None:
    differing = []
    for seed in range(40):
        pixels = picture(200, 260, 3, seed)
        found = reference.hash_bits(pixels, "phash", bits)
        assert found is not None
        differing.append(int((found != reference.textbook_bits(pixels, bits)).sum()))
    assert max(differing) <= 2


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ((np.zeros((4, 4), np.float32),), TypeError, "pixels: expected dtype uint8, got float32"),
        (([[1]],), TypeError, "pixels: expected a NumPy array of uint8, got list"),
        ((np.zeros((4, 4, 2), np.uint8),), ValueError, r"pixels: expected shape .* got \(4, 4, 2\)"),
        ((np.zeros(4, np.uint8),), ValueError, r"pixels: expected shape .* got \(4,\)"),
        ((np.zeros((0, 4), np.uint8),), ValueError, "pixels: expected sides of 1 to 1048576 pixels"),
        ((np.zeros((4, 8), np.uint8)[:, ::2],), ValueError, "pixels: expected adjacent pixels in each row"),
        ((np.zeros((4, 4), np.uint8), "ahash"), ValueError, "kind: expected 'phash' or 'dhash', got 'ahash'"),
        ((np.zeros((4, 4), np.uint8), "phash", 128), ValueError, "bits: expected 64 or 256, got 128"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        picture_hash(*arguments)
