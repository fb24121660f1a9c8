"""Which samples of a tar are wanted, and how they are copied: pycurate.io.reshard."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pycurate.errors import PoolError
from pycurate.io.reshard import TarIndex, TarWriter, copies_from, index_tar, nearby, tar_uid_source
from pycurate.io.store import Store
from pycurate.io.uids import path_uids
from pycurate.kernels.uid import format_hex, sort_uids
from pycurate.types import UID_DTYPE, UidArray

A, B, C = "0" * 31 + "a", "b" * 32, "c" * 32
Member = tuple[str, bytes]


def uids_of(*texts: str) -> UidArray:
    uids = np.array([(int(text[:16], 16), int(text[16:], 16)) for text in texts], UID_DTYPE)
    sort_uids(uids)
    return uids


def pack(path: Path, members: Sequence[Member], **fields: int | str) -> None:
    """Members as they come; ``fields`` are set on every header."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))


def sample(key: str, uid: str, *others: str) -> list[Member]:
    return [
        (f"{key}.json", json.dumps({"uid": uid}).encode()),
        *((f"{key}.{e}", f"{key} {e}".encode()) for e in others),
    ]


def index(folder: Path, subset: UidArray, uid_source: str = "json") -> TarIndex:
    return index_tar(Store.at(folder), "a.tar", subset, uid_source)  # type: ignore[arg-type]


def copied(folder: Path, made: TarIndex, begin: int = 0, end: int | None = None) -> Path:
    """The copies begin to end - 1, written to b.tar."""
    store = Store.at(folder)
    with (folder / "b.tar").open("wb") as file, store.reader("a.tar") as reader:
        writer = TarWriter(file)
        writer.copy(reader, "a.tar", made, begin, int(made.copies.sum()) if end is None else end)
        writer.close()
    assert writer.bytes == (folder / "b.tar").stat().st_size
    return folder / "b.tar"


def members(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        found = []
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            found.append((info.name, file.read()))
    return found


def test_index_holds_the_wanted_samples(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A, "jpg") + sample("2", B, "jpg", "cls.txt") + sample("3", C))
    made = index(tmp_path, uids_of(A, C, C, C))
    assert format_hex(made.uids).tolist() == [A.encode(), C.encode()]
    assert made.copies.tolist() == [1, 3]
    assert made.positions.tolist() == [0, 1]
    assert made.first_member.tolist() == [0, 2, 3]
    assert [made.extensions[i] for i in made.extension_of] == ["json", "jpg", "json"]
    assert (made.samples, made.without_uid) == (3, 0)
    data = (tmp_path / "a.tar").read_bytes()
    assert data[made.offsets[1] : made.offsets[1] + made.sizes[1]] == b"1 jpg"


def test_index_survives_its_file(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A, "jpg", "größe") + sample("2", B))
    made = index(tmp_path, uids_of(A, A))
    with (tmp_path / "index.npz").open("wb") as file:
        made.save(file)
    loaded = TarIndex.load(tmp_path / "index.npz")
    for field in TarIndex.__slots__:
        assert np.array_equal(getattr(loaded, field), getattr(made, field)), field


def test_members_of_a_sample_need_not_stand_together(tmp_path: Path) -> None:
    one, two = sample("1", A, "jpg", "txt"), sample("2", B, "jpg")
    pack(tmp_path / "a.tar", [one[0], two[0], one[1], two[1], one[2]])
    path = copied(tmp_path, index(tmp_path, uids_of(A, B)))
    names = [f"{A}-0.json", f"{A}-0.jpg", f"{A}-0.txt", f"{B}-0.json", f"{B}-0.jpg"]
    assert members(path) == [(name, data) for name, (_, data) in zip(names, one + two, strict=True)]


def test_a_name_met_again_begins_another_sample(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A, "jpg") + sample("1", B, "jpg"))
    made = index(tmp_path, uids_of(A, B))
    assert made.samples == 2
    assert [name for name, _ in members(copied(tmp_path, made))] == [
        f"{A}-0.json", f"{A}-0.jpg", f"{B}-0.json", f"{B}-0.jpg",
    ]  # fmt: skip


def test_members_without_key_or_extension_belong_to_no_sample(tmp_path: Path) -> None:
    stray = [("README", b"x"), ("dir/.hidden.jpg", b"x"), ("dir/._1.jpg", b"x")]
    pack(tmp_path / "a.tar", stray[:1] + sample("dir/1", A, "jpg") + stray[1:])
    made = index(tmp_path, uids_of(A))
    assert made.samples == 1
    assert [name for name, _ in members(copied(tmp_path, made))] == [f"{A}-0.json", f"{A}-0.jpg"]


def test_samples_without_uid_are_counted(tmp_path: Path) -> None:
    no_uid = [("2.json", b'{"url": "x"}'), ("3.jpg", b"x"), ("4.json", b'{"uid": null}')]
    pack(tmp_path / "a.tar", sample("1", A) + no_uid)
    made = index(tmp_path, uids_of(A))
    assert (made.samples, made.without_uid, len(made.uids)) == (4, 3, 1)


def test_uids_from_the_path(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [("000001.jpg", b"1"), ("000002.jpg", b"2"), ("000002.json", b"not read")])
    uids = path_uids("a", ["000001", "000002"])
    made = index(tmp_path, uids[1:].copy(), "path")
    assert made.uids.tolist() == uids[1:].tolist()
    assert [data for _, data in members(copied(tmp_path, made))] == [b"2", b"not read"]


@pytest.mark.parametrize(
    ("first", "expected"), [(sample("1", A), "json"), ([("1.json", b"{}")], "path"), ([("1.jpg", b"")], "path")]
)
def test_the_first_json_says_where_uids_are(tmp_path: Path, first: list[Member], expected: str) -> None:
    pack(tmp_path / "a.tar", first)
    assert tar_uid_source(Store.at(tmp_path), ["a.tar"]) == expected


def test_empty_tars_do_not_say_where_uids_are(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [])
    pack(tmp_path / "b.tar", sample("1", A))
    assert tar_uid_source(Store.at(tmp_path), ["a.tar", "b.tar"]) == "json"


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [])
    for source in ("json", "path"):
        made = index(tmp_path, uids_of(A), source)
        assert (made.samples, len(made.uids), made.first_member.tolist()) == (0, 0, [0])


def test_an_empty_subset_wants_nothing(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A))
    made = index(tmp_path, uids_of())
    assert (made.samples, len(made.uids)) == (1, 0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{", r"a.tar: member '1.json' is not JSON \(JSONDecodeError"),
        (b'{"uid": ' + b"[" * 100_000, r"a.tar: member '1.json' is not JSON \(RecursionError"),
        (b'{"n": ' + b"9" * 5_000 + b"}", r"a.tar: member '1.json' is not JSON \(ValueError"),
        (b"\xff\xfe\x00", r"a.tar: member '1.json' is not JSON \(UnicodeDecodeError"),
        (b"[]", "a.tar: member '1.json' holds a JSON list; expected an object"),
        (b'{"uid": 7}', "a.tar: member '1.json' has the uid '7'; expected 32 hex digits"),
        (b'{"uid": "../../etc/passwd"}', "has the uid '../../etc/passwd'; expected 32 hex digits"),
        (b'{"uid": "%s\\n"}' % A.encode(), "expected 32 hex digits"),
        (b" " * (1 << 20) + b"{}", "a.tar: member '1.json' has 1,048,578 bytes; expected at most 1,048,576 of JSON"),
    ],
)
def test_hostile_json_is_named(tmp_path: Path, data: bytes, sentence: str) -> None:
    pack(tmp_path / "a.tar", [("1.json", data)])
    with pytest.raises(PoolError, match=sentence):
        index(tmp_path, uids_of(A))


def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [*sample("1", A), ("x/../../1.jpg", b"")])
    with pytest.raises(PoolError, match=r"a.tar: member 'x/../../1.jpg' points outside the archive; refused"):
        index(tmp_path, uids_of(A))


def test_a_cut_tar_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A, "jpg"))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1030])
    with pytest.raises(PoolError, match=r"a.tar: truncated: .*copy or download it again"):
        index(tmp_path, uids_of(A))


def test_a_tar_cut_after_it_was_indexed_is_an_error(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", [("1.jpg", b"x" * 3_000_000), *sample("1", A)[:1]])
    made = index(tmp_path, uids_of(A))
    whole = (tmp_path / "a.tar").read_bytes()
    for cut in (100, 1_500_000):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        with pytest.raises(PoolError, match=r"a\.tar: truncated"):
            copied(tmp_path, made)


def test_header_fields_but_the_name_are_kept(tmp_path: Path) -> None:
    fields = {"mtime": 1_234_567_890, "mode": 0o640, "uid": 12, "gid": 34, "uname": "ann", "gname": "staff"}
    pack(tmp_path / "a.tar", sample("1", A, "jpg"), **fields)
    with tarfile.open(copied(tmp_path, index(tmp_path, uids_of(A)))) as tar:
        for info in tar:
            assert {field: getattr(info, field) for field in fields} == fields
            assert info.isreg()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_in_every_format(tmp_path: Path, kind: int) -> None:
    folder = "f" * 90  # in a prefix field, a long-name record or a pax record
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        for name, data in sample(f"{folder}/{'k' * 20}", A, "jpg", "größe"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1000
            tar.addfile(info, io.BytesIO(data))
    path = copied(tmp_path, index(tmp_path, uids_of(A)))
    assert [name for name, _ in members(path)] == [f"{A}-0.json", f"{A}-0.jpg", f"{A}-0.größe"]
    assert members(path)[1][1].endswith(b"k jpg")


def test_an_extension_too_long_for_a_header(tmp_path: Path) -> None:
    long = "e" * 120
    pack(tmp_path / "a.tar", sample("1", A, long, "jpg"))
    path = copied(tmp_path, index(tmp_path, uids_of(A)))
    assert [name for name, _ in members(path)] == [f"{A}-0.json", f"{A}-0.{long}", f"{A}-0.jpg"]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (1 << 20) - 512, (1 << 20) - 511, (2 << 20) + 5])
def test_members_of_every_size_come_out_whole(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    pack(tmp_path / "a.tar", [("1.bin", data), *sample("1", A)])
    path = copied(tmp_path, index(tmp_path, uids_of(A, A)))
    assert path.stat().st_size % 10240 == 0
    assert [d for n, d in members(path) if n.endswith(".bin")] == [data, data]


def test_any_stretch_of_the_copies_can_be_written(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", sample("1", A, "jpg") + sample("2", B) + sample("3", C, "jpg"))
    made = index(tmp_path, uids_of(A, A, A, B, C, C))
    whole = members(copied(tmp_path, made))
    keys = [f"{A}-0", f"{A}-1", f"{A}-2", f"{B}-0", f"{C}-0", f"{C}-1"]
    assert list(dict.fromkeys(name.split(".")[0] for name, _ in whole)) == keys
    for begin in range(6):
        for end in range(begin, 7):
            part = members(copied(tmp_path, made, begin, end))
            assert part == [(name, data) for name, data in whole if name.split(".")[0] in keys[begin:end]]


def test_copies_are_counted_by_galloping() -> None:
    counts = [1, 2, 3, 7, 8, 9, 1, 1000, 1]
    subset = np.zeros(sum(counts), UID_DTYPE)
    subset["f1"] = np.repeat(np.arange(len(counts)), counts)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    assert copies_from(subset, first).tolist() == counts
    backwards = first[::-1].copy()
    assert copies_from(subset, backwards).tolist() == counts[::-1]


def test_a_remote_tar_is_copied_for_the_time(tmp_path: Path) -> None:
    import fsspec

    pack(tmp_path / "a.tar", sample("1", A, "jpg"))
    with fsspec.open("memory://reshard-test/sub/a.tar", "wb") as file:
        file.write((tmp_path / "a.tar").read_bytes())
    with nearby(Store.at("memory://reshard-test"), "sub/a.tar", tmp_path / "scratch") as store:
        assert store.local
        assert index_tar(store, "sub/a.tar", uids_of(A), "json").samples == 1
    assert not (tmp_path / "scratch").exists()
