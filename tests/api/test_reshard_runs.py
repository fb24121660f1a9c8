"""reshard as one call: order, copies, what is said, resumption. Against a plain rendition over tarfile."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from rich.console import Console

from pycurate.api.reshard import reshard
from pycurate.errors import InputError, MemoryCapError, PoolError, WorkspaceError
from pycurate.io.pool import open_pool
from pycurate.io.subset import Subset

MakeTars = Callable[..., list[str]]


def pack(path: Path, samples: Sequence[tuple[str, str | None]], seed: int = 0) -> None:
    """Samples of (key, uid): an image, a caption, a json and now and then a mask."""
    random = np.random.default_rng([seed, len(samples)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, (key, uid) in enumerate(samples):
            facts = {"key": key} | ({} if uid is None else {"uid": uid})
            members = {"jpg": random.bytes(random.integers(1, 3000)), "json": json.dumps(facts).encode()}
            members |= {"txt": f"caption {key}".encode()} | ({"mask.png": random.bytes(700)} if i % 5 == 0 else {})
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(data), 1_700_000_000 + i
                tar.addfile(info, io.BytesIO(data))


def pack_pool(root: Path, tars: int = 3, samples: int = 25, seed: int = 0) -> list[str]:
    """``00000000.tar`` and so on; the uids in order."""
    random = np.random.default_rng(seed)
    uids = [random.bytes(16).hex() for _ in range(tars * samples)]
    for number in range(tars):
        part = range(number * samples, (number + 1) * samples)
        pack(root / f"{number:08d}.tar", [(f"{number:05d}{i:04d}", uids[i]) for i in part], number)
    return uids


def members(path: Path) -> list[tuple[str, bytes, float]]:
    with tarfile.open(path) as tar:
        return [(info.name, tar.extractfile(info).read(), info.mtime) for info in tar]  # type: ignore[union-attr]


def expected_tars(root: Path, wanted: Sequence[str], step: int) -> list[list[tuple[str, bytes, float]]]:
    """Tars by name, samples as they stand, copies side by side, ``step`` samples in a tar."""
    copies = Counter(wanted)
    samples: list[list[tuple[str, bytes, float]]] = []
    for path in sorted(root.rglob("*.tar")):
        by_key: dict[str, list[tuple[str, bytes, float]]] = {}
        for name, data, mtime in members(path):
            key, _, extension = name.partition(".")
            by_key.setdefault(key, []).append((extension, data, mtime))
        for parts in by_key.values():
            uid = next(json.loads(data).get("uid") for extension, data, _ in parts if extension == "json")
            for j in range(copies[uid]):
                samples.append([(f"{uid}-{j}.{extension}", data, mtime) for extension, data, mtime in parts])
    return [[m for s in samples[i : i + step] for m in s] for i in range(0, len(samples), step)]


def written(out: Path) -> dict[str, bytes]:
    """Every file of the output but the workspace."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_what_comes_out_is_what_a_plain_program_writes(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool")
    strangers = ["0" * 32, "f" * 32]
    wanted = uids[::2] + uids[:9] + uids[4:6] + [uids[8]] * 30 + strangers + strangers[:1]
    result = reshard(tmp_path / "pool", Subset.from_hex(wanted), tmp_path / "out", samples_per_shard=16, workers=1)
    expected = expected_tars(tmp_path / "pool", wanted, 16)
    paths = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in paths] == [f"{i:08d}.tar" for i in range(len(expected))]
    assert [members(path) for path in paths] == expected
    samples = [len({name.split(".")[0] for name, _, _ in tar}) for tar in expected]
    assert samples[:-1] == [16] * (len(samples) - 1)
    stats = [json.loads((tmp_path / "out" / f"{i:08d}_stats.json").read_text()) for i in range(len(paths))]
    assert stats == [{"successes": n} for n in samples]
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {
        path.name: n for path, n in zip(paths, samples, strict=True)
    }
    found = len(set(wanted) - set(strangers))
    assert (result.shards, result.samples, result.found, result.missing) == (len(paths), sum(samples), found, 2)
    assert result.samples == len(wanted) - 3
    assert result.first_missing == tuple(strangers)
    assert (result.pool_tars, result.pool_samples, result.without_uid, result.repeated) == (3, 75, 0, 0)
    assert result.bytes == sum(path.stat().st_size for path in paths)


def test_the_result_for_machines_and_for_people(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=1, samples=4)
    wanted = Subset.from_hex([*uids, *(f"{i:032x}" for i in range(7))])
    result = reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    values = result.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["first_missing"] == [f"{i:032x}" for i in range(5)]
    console = Console(file=io.StringIO(), width=250)
    console.print(result.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4 samples in 1 tars" in text
    assert f"7: {0:032x}" in text
    assert f"{4:032x}, ..." in text


def test_two_workers_and_one_write_the_same_bytes(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool")
    wanted = Subset.from_hex(uids[5:70] + uids[20:30])
    for workers in (1, 2):
        reshard(tmp_path / "pool", wanted, tmp_path / f"out{workers}", samples_per_shard=20, workers=workers)
    assert written(tmp_path / "out1") == written(tmp_path / "out2")
    assert len(written(tmp_path / "out1")) == 4 * 2 + 3


# Each one ends the process as `kill -9` does: while a tar is indexed, in the middle of writing the second tar, and
# between a tar's appearance and its marker.
KILLS = {
    "index": "tasks.index_tar = at(2, tasks.index_tar)",
    "copy": "tasks.TarWriter._write = at(2, tasks.TarWriter._write)",
    "marker": "tasks.write_json_atomic = at(4, tasks.write_json_atomic)",
}
KILLED_RUN = """
import os, signal, sys
import pycurate.api.reshard_tasks as tasks
from pycurate.api.reshard import reshard

def at(call, function):
    calls = 0
    def counted(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return counted

if __name__ == "__main__":
    exec(sys.argv[1])
    reshard("pool", "subset.npy", "out", samples_per_shard=20, workers=1)
"""


def test_killed_runs_are_continued_to_the_same_bytes(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool")
    Subset.from_hex(uids[5:70] + uids[20:30]).save(tmp_path / "subset.npy")
    for kill in KILLS.values():
        command = [sys.executable, "-c", KILLED_RUN, kill]
        killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [f"{i:08d}.tar" for i in range(3)]
    before = (tmp_path / "out" / "00000000.tar").stat().st_mtime_ns
    resumed = reshard(tmp_path / "pool", tmp_path / "subset.npy", tmp_path / "out", samples_per_shard=20, workers=1)
    fresh = reshard(tmp_path / "pool", tmp_path / "subset.npy", tmp_path / "whole", samples_per_shard=20, workers=1)
    assert written(tmp_path / "out") == written(tmp_path / "whole")
    assert (tmp_path / "out" / "00000000.tar").stat().st_mtime_ns == before
    assert (resumed.reused, fresh.reused) == (2, 0)
    assert [path.name for path in (tmp_path / "out").rglob("*.tmp")] == []


def test_a_finished_call_does_nothing_again(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=2)
    arguments: dict[str, Any] = {"samples_per_shard": 10, "workers": 1}
    wanted = Subset.from_hex([*uids[:33], "0" * 32])
    first = reshard(tmp_path / "pool", wanted, tmp_path / "out", **arguments).to_dict()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()}
    again = reshard(tmp_path / "pool", wanted, tmp_path / "out", **arguments).to_dict()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (first["reused"], again["reused"]) == (0, 4)
    assert {**first, "reused": 0, "seconds": 0} == {**again, "reused": 0, "seconds": 0}
    whole = written(tmp_path / "out")
    (tmp_path / "out" / "00000002.tar").unlink()
    (tmp_path / "out" / "00000001.tar").write_bytes(b"cut")
    assert reshard(tmp_path / "pool", wanted, tmp_path / "out", **arguments).reused == 2
    assert written(tmp_path / "out") == whole


def test_another_subset_replaces_what_was_there(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool")
    arguments: dict[str, Any] = {"samples_per_shard": 10, "workers": 1}
    reshard(tmp_path / "pool", Subset.from_hex(uids), tmp_path / "out", **arguments)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    small = Subset.from_hex(uids[40:55])
    result = reshard(tmp_path / "pool", small, tmp_path / "out", **arguments)
    assert (result.shards, result.reused) == (2, 0)
    reshard(tmp_path / "pool", small, tmp_path / "fresh", **arguments)
    assert written(tmp_path / "out") == {**written(tmp_path / "fresh"), "notes.txt": b"mine"}


def test_a_changed_pool_is_read_again(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=2)
    wanted = Subset.from_hex(uids)
    reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    pack(tmp_path / "pool" / "00000001.tar", [("x", uids[30])])
    result = reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    assert (result.samples, result.missing, result.reused) == (26, 24, 0)


def test_a_pool_that_changes_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = pack_pool(tmp_path / "pool", tars=1)
    import pycurate.api.reshard_tasks as tasks

    class Touching(tasks.TarWriter):
        def copy(self, *args: Any) -> None:
            super().copy(*args)
            os.utime(tmp_path / "pool" / "00000000.tar", (1, 1))

    monkeypatch.setattr(tasks, "TarWriter", Touching)
    with pytest.raises(PoolError, match=r"00000000.tar: changed while it was being read; run again when nobody writes"):
        reshard(tmp_path / "pool", Subset.from_hex(uids), tmp_path / "out", workers=1)
    assert list((tmp_path / "out").glob("*.tar")) == []


def test_a_uid_in_two_tars_is_refused_or_taken_once(tmp_path: Path) -> None:
    a, b, c = ("a" * 32, "b" * 32, "c" * 32)
    pack(tmp_path / "pool" / "0.tar", [("1", a), ("2", b)], 1)
    pack(tmp_path / "pool" / "1.tar", [("3", c), ("4", a), ("5", b)], 2)
    wanted = Subset.from_hex([a, a, b, c])
    with pytest.raises(PoolError, match=f"uid {a} is in 0.tar and again in 1.tar; remove one .*--allow-duplicate-uids"):
        reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    assert reshard(tmp_path / "pool", Subset.from_hex([c]), tmp_path / "c", workers=1).samples == 1
    result = reshard(
        tmp_path / "pool", wanted, tmp_path / "out", workers=1, samples_per_shard=3, allow_duplicate_uids=True
    )
    assert (result.samples, result.found, result.missing, result.repeated) == (4, 3, 0, 2)
    first = [name for i in range(2) for name, _, _ in members(tmp_path / "out" / f"{i:08d}.tar") if ".txt" in name]
    assert first == [f"{a}-0.txt", f"{a}-1.txt", f"{b}-0.txt", f"{c}-0.txt"]
    captions = [
        data for i in range(2) for name, data, _ in members(tmp_path / "out" / f"{i:08d}.tar") if ".txt" in name
    ]
    assert captions == [b"caption 1", b"caption 1", b"caption 2", b"caption 3"]


def test_a_uid_twice_in_one_tar(tmp_path: Path) -> None:
    pack(tmp_path / "pool" / "0.tar", [("1", "a" * 32), ("2", "a" * 32)])
    with pytest.raises(PoolError, match=f"uid {'a' * 32} is more than once in 0.tar"):
        reshard(tmp_path / "pool", Subset.from_hex(["a" * 32]), tmp_path / "out", workers=1)


def test_samples_without_uid_are_left_out_and_counted(tmp_path: Path) -> None:
    pack(tmp_path / "pool" / "0.tar", [("1", "a" * 32), ("2", None), ("3", "b" * 32)])
    result = reshard(tmp_path / "pool", Subset.from_hex(["a" * 32, "b" * 32]), tmp_path / "out", workers=1)
    assert (result.samples, result.pool_samples, result.without_uid) == (2, 3, 1)


def test_an_img2dataset_pool_without_uids(tmp_path: Path, pool_factory: Any) -> None:
    root = pool_factory.img2dataset(tmp_path / "pool", shards=2, rows=20)
    pool = open_pool(root)
    assert pool.uid_source == "path"
    uids = np.concatenate([block.uids for shard in pool.shards for block in shard.blocks()])
    for number, given in enumerate((root, pool)):
        out = tmp_path / f"out{number}"
        result = reshard(given, Subset.from_uids(uids[::2].copy()), out, workers=1)
        # Row 3, 10, 17 and so on failed to download: their uids are in the parquet and in no tar.
        failed = [row for row in range(0, 40, 2) if row % 7 == 3]
        assert (result.found, result.missing) == (20 - len(failed), len(failed))
        keys = [json.loads(data)["key"] for name, data, _ in members(out / "00000000.tar") if name.endswith(".json")]
        assert keys == [f"{row // 20:05d}{row % 20:04d}" for row in range(0, 40, 2) if row % 7 != 3]
    assert written(tmp_path / "out0") == written(tmp_path / "out1")


def test_tars_in_folders_and_a_single_tar(tmp_path: Path) -> None:
    pack(tmp_path / "pool" / "b" / "0.tar", [("1", "b" * 32)])
    pack(tmp_path / "pool" / "a" / "1.tar", [("1", "a" * 32)])
    wanted = Subset.from_hex(["a" * 32, "b" * 32])
    reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    names = [name[0] for name, _, _ in members(tmp_path / "out" / "00000000.tar") if name.endswith(".json")]
    assert names == ["a", "b"]
    assert reshard(tmp_path / "pool" / "b" / "0.tar", wanted, tmp_path / "one", workers=1).first_missing == ("a" * 32,)


def test_out_below_the_pool_is_not_read_as_pool(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=1)
    for samples in (25, 20):
        result = reshard(tmp_path / "pool", Subset.from_hex(uids[:samples]), tmp_path / "pool" / "out", workers=1)
        assert (result.pool_tars, result.samples) == (1, samples)


def test_a_remote_pool(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=2)
    for path in (tmp_path / "pool").iterdir():
        with fsspec.open(f"memory://remote-tars/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    wanted = Subset.from_hex(uids[::3])
    for root, out in (("memory://remote-tars", "remote"), (tmp_path / "pool", "local")):
        reshard(root, wanted, tmp_path / out, samples_per_shard=7, workers=1)
    remote, local = written(tmp_path / "remote"), written(tmp_path / "local")
    assert {name: data for name, data in remote.items() if name != "reshard.json"} == {
        name: data for name, data in local.items() if name != "reshard.json"
    }
    assert not (tmp_path / "remote" / ".work" / "fetched").exists() or not any(
        (tmp_path / "remote" / ".work" / "fetched").iterdir()
    )


def test_an_empty_subset_writes_no_tar(tmp_path: Path) -> None:
    pack_pool(tmp_path / "pool", tars=1)
    result = reshard(tmp_path / "pool", Subset.from_hex([]), tmp_path / "out", workers=1)
    assert (result.shards, result.samples, result.missing) == (0, 0, 0)
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {}


def test_bad_arguments_and_pools_are_said(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=1, samples=3)
    good = Subset.from_hex(uids)
    pool, out = tmp_path / "pool", tmp_path / "out"
    with pytest.raises(InputError, match="samples_per_shard: expected at least 1, got 0"):
        reshard(pool, good, out, samples_per_shard=0)
    with pytest.raises(InputError, match="workers: expected at least 1, got 0"):
        reshard(pool, good, out, workers=0)
    with pytest.raises(PoolError, match=r"pool: '.*nothing' does not exist"):
        reshard(tmp_path / "nothing", good, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match=r"pool: '.*empty' has no \.tar file; expected tars of samples"):
        reshard(tmp_path / "empty", good, out)
    with pytest.raises(InputError, match=r"out: .* is the folder of the pool; choose another"):
        reshard(pool, good, pool)
    with pytest.raises(MemoryCapError, match=r"memory: 10 MiB is not enough for 1 worker .*; give at least 224 MiB"):
        reshard(pool, good, out, workers=1, memory_bytes=10 << 20)
    with pytest.raises(
        PoolError, match=r"none of the subset's uids, such as 0{32}, is in the 1 tars of .*json members"
    ):
        reshard(pool, Subset.from_hex(["0" * 32]), out, workers=1)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "00000000.tar").write_bytes(b"precious")
    with pytest.raises(WorkspaceError, match="is not empty and is not from an earlier pycurate run"):
        reshard(pool, good, tmp_path / "foreign", workers=1)
    assert (tmp_path / "foreign" / "00000000.tar").read_bytes() == b"precious"


def test_damaged_tars_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=3)
    whole = (tmp_path / "pool" / "00000002.tar").read_bytes()
    (tmp_path / "pool" / "00000002.tar").write_bytes(whole[:5_000])
    wanted = Subset.from_hex(uids)
    with pytest.raises(PoolError, match=r"00000002\.tar: truncated: .*; copy or download it again"):
        reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1)
    assert list((tmp_path / "out").glob("*.tar")) == []
    (tmp_path / "pool" / "00000002.tar").write_bytes(whole)
    assert reshard(tmp_path / "pool", wanted, tmp_path / "out", workers=1).samples == 75


def test_an_unsorted_subset_file_is_refused(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool", tars=1)
    ordered = Subset.from_hex(uids).uids
    np.save(tmp_path / "subset.npy", np.ascontiguousarray(ordered[::-1]))
    with pytest.raises(InputError, match=r"subset: .*subset\.npy is not sorted: row 1 is less than the row before it"):
        reshard(tmp_path / "pool", tmp_path / "subset.npy", tmp_path / "out", workers=1)


def test_a_copy_of_the_output_is_a_pool_again(tmp_path: Path) -> None:
    uids = pack_pool(tmp_path / "pool")
    reshard(tmp_path / "pool", Subset.from_hex(uids[:50]), tmp_path / "out", samples_per_shard=9, workers=1)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    second = reshard(tmp_path / "copy", Subset.from_hex(uids[25:75]), tmp_path / "again", workers=1)
    assert (second.found, second.missing) == (25, 25)
