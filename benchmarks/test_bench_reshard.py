"""reshard against the public resharder's algorithm: 10,000 samples of 20 kB, three tenths of them wanted.

Whole processes on one worker each, interpreter start included, files in the page cache.
"""

from __future__ import annotations

import io
import json
import shutil
import statistics
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from measure import Figures, measure

from pycurate.io.subset import Subset

PEER = Path(__file__).parent / "peers" / "datacomp_resharder.py"
TARS, SAMPLES, IMAGE_BYTES, KEPT, ROUNDS = 2, 5_000, 20_000, 0.3, 3


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the tars, and the subset file."""
    folder = tmp_path_factory.mktemp("tars")
    random = np.random.default_rng(0)
    uids = []
    for number in range(TARS):
        with tarfile.open(folder / f"{number:08d}.tar", "w") as tar:
            for i in range(SAMPLES):
                uids.append(random.bytes(16).hex())
                facts = {"uid": uids[-1], "url": f"https://example.org/{i}.jpg", "exif": "{}", "sha256": "0" * 64}
                members = {"jpg": random.bytes(IMAGE_BYTES), "json": json.dumps(facts).encode(), "txt": b"a red house"}
                for extension, data in members.items():
                    info = tarfile.TarInfo(f"{number:05d}{i:04d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    wanted = [uid for uid in uids if random.random() < KEPT]
    Subset.from_hex(wanted).save(folder / "subset.npy")
    return folder, folder / "subset.npy"


def run_ours(pool: Path, subset: Path, out: Path) -> Figures:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pycurate", "reshard", pool, "--subset", subset, "--out", out]
    return measure([*command, "--workers", "1", "--quiet"])


def run_peer(pool: Path, subset: Path, out: Path) -> Figures:
    shutil.rmtree(out, ignore_errors=True)
    return measure([sys.executable, PEER, pool, subset, out])


def contents(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {info.name: tar.extractfile(info).read() for info in tar}
    return found


@pytest.mark.benchmark(group="reshard")
def test_bench_reshard(benchmark, pool, tmp_path) -> None:
    ours, theirs = [], []

    def pair() -> None:
        ours.append(run_ours(*pool, tmp_path / "ours"))
        theirs.append(run_peer(*pool, tmp_path / "theirs"))

    benchmark.pedantic(pair, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")
    benchmark.extra_info.update(
        cpu_ratio=round(statistics.median(b.cpu_seconds / a.cpu_seconds for a, b in zip(ours, theirs, strict=True)), 2),
        wall_ratio=round(
            statistics.median(b.wall_seconds / a.wall_seconds for a, b in zip(ours, theirs, strict=True)), 2
        ),
        ours_cpu_seconds=round(statistics.median(f.cpu_seconds for f in ours), 2),
        peer_cpu_seconds=round(statistics.median(f.cpu_seconds for f in theirs), 2),
        ours_peak_mb=max(f.peak_bytes for f in ours) >> 20,
        peer_peak_mb=max(f.peak_bytes for f in theirs) >> 20,
    )
