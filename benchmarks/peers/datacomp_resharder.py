"""The public resharder's algorithm, one worker, over tarfile streams: every member is read, every json parsed, wanted
samples are written again. Ours to write; no line of the public script. Arguments: POOL SUBSET OUT."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np

SAMPLES_PER_SHARD = 10_000


def samples(path: Path):
    key, sample = None, {}
    with tarfile.open(path, "r|") as tar:
        for info in tar:
            name, _, extension = info.name.partition(".")
            if name != key and sample:
                yield sample
                sample = {}
            key = name
            sample[extension] = tar.extractfile(info).read()
    if sample:
        yield sample


def main(pool: Path, subset_path: Path, out: Path) -> None:
    subset = np.load(subset_path, mmap_mode="r")
    out.mkdir()
    tar, written = None, 0
    for path in sorted(pool.glob("*.tar")):
        for sample in samples(path):
            uid = json.loads(sample["json"])["uid"]
            key = np.array([divmod(int(uid, 16), 2**64)], subset.dtype)[0]
            copies = np.searchsorted(subset, key, "right") - np.searchsorted(subset, key, "left")
            for copy in range(copies):
                if written % SAMPLES_PER_SHARD == 0:
                    if tar is not None:
                        tar.close()
                    tar = tarfile.open(  # noqa: SIM115 - closed when the next one begins
                        out / f"{written // SAMPLES_PER_SHARD:08d}.tar", "w"
                    )
                written += 1
                for extension in sorted(sample):
                    info = tarfile.TarInfo(f"{uid}-{copy}.{extension}")
                    info.size = len(sample[extension])
                    tar.addfile(info, io.BytesIO(sample[extension]))
    if tar is not None:
        tar.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
