"""From tars and a subset to new tars: which samples of a tar are wanted, and their copying, bytes untouched.

A sample is all members of a tar that share a key, wherever they stand. Members without a key or an extension
(``README``, ``._0001.jpg``) belong to no sample, as in webdataset. Every function here does one tar or one part of the
order; the order of the new tars is: tars by name, samples by their first member, copies of a sample side by side.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import PoolError
from pycurate.io.atomic import atomic_write
from pycurate.io.store import RangeReader, Store, cut_short
from pycurate.io.tar import TarMember, tar_members
from pycurate.io.uids import path_uids
from pycurate.kernels.uid import find, format_hex, parse_hex
from pycurate.types import UID_DTYPE, UidArray

TarUidSource: TypeAlias = Literal["json", "path"]
"""``json``: the text ``uid`` in a sample's json member; ``path``: hashed from the tar's path and the sample's key."""

LARGEST_JSON_BYTES = 1 << 20

_HEX_UID = re.compile("[0-9a-fA-F]{32}")
_BLOCK = 512
_ARCHIVE_BLOCK = 20 * _BLOCK  # the size of a tar is a multiple of it
_CHUNK_BYTES = 1 << 20
_NAME_BYTES = 100
_LARGEST_OCTAL = 8**11 - 1


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The samples of one tar that a subset asks for: s samples of m members, in the order in which they are written.

    Attributes
    ----------
    uids
        (s,) of ``UID_DTYPE``.
    positions
        (s,) int64: the first row of the subset with that uid.
    copies
        (s,) int64: how many rows of the subset have it; at least 1.
    first_member
        (s + 1,) int64: sample i has the members ``first_member[i]`` to ``first_member[i + 1] - 1``.
    offsets, sizes
        (m,) int64: where the data of a member lies in the tar, in bytes; its header is the 512 bytes before.
    extension_of
        (m,) int64: row of ``extensions``.
    extensions
        Different extensions of the tar, without a leading dot.
    samples
        All samples of the tar.
    without_uid
        Samples that have no json member or no ``uid`` in it, and so cannot be asked for.
    """

    uids: UidArray
    positions: NDArray[np.int64]
    copies: NDArray[np.int64]
    first_member: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    extension_of: NDArray[np.int64]
    extensions: tuple[str, ...]
    samples: int
    without_uid: int

    def save(self, file: BinaryIO) -> None:
        """Write as npz."""
        facts = {"extensions": self.extensions, "samples": self.samples, "without_uid": self.without_uid}
        arrays = {name: getattr(self, name) for name in _INDEX_ARRAYS}
        np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> TarIndex:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            facts["extensions"] = tuple(facts["extensions"])
            return cls(**{name: stored[name] for name in _INDEX_ARRAYS}, **facts)


_INDEX_ARRAYS = ("uids", "positions", "copies", "first_member", "offsets", "sizes", "extension_of")


def tar_uid_source(store: Store, tars: Sequence[str]) -> TarUidSource:
    """Where the uids of the samples are: in the json members if the first of them, in the first tar that is not empty,
    has a ``uid``."""
    for tar in tars:
        empty = True
        for member in tar_members(store, tar):
            empty = False
            if member.extension.lower() == "json":
                with store.reader(tar) as reader:
                    found = _json_uid(reader, tar, member.name, member.offset, member.size)
                    return "path" if found is None else "json"
        if not empty:
            break
    return "path"


def index_tar(store: Store, tar: str, subset: UidArray, uid_source: TarUidSource) -> TarIndex:
    """Look at the headers, and json members where the uids are there, of one tar.

    Parameters
    ----------
    tar
        Path relative to the store.
    subset
        (n,) sorted; repeats are copies. May be a memory map.

    Raises
    ------
    PoolError
        The tar is damaged or names members outside itself; a json member is larger than 1 MiB or is no JSON object; a
        uid is not 32 hex digits.
    """
    table = _SampleTable()
    for member in tar_members(store, tar):
        table.add(member)
    if uid_source == "path":
        uids, known = path_uids(tar.removesuffix(".tar"), table.keys), np.arange(len(table.keys))
    else:
        uids, known = _json_uids(store, tar, table)
    positions = find(subset, uids)
    wanted = positions >= 0
    samples, positions = known[wanted], positions[wanted]
    members, first_member = table.members_of(samples)
    return TarIndex(
        uids=uids[wanted],
        positions=positions,
        copies=copies_from(subset, positions),
        first_member=first_member,
        offsets=np.frombuffer(table.offsets, np.int64)[members],
        sizes=np.frombuffer(table.sizes, np.int64)[members],
        extension_of=np.frombuffer(table.extension_of, np.int64)[members],
        extensions=tuple(table.extensions),
        samples=len(table.keys),
        without_uid=len(table.keys) - len(known),
    )


class _SampleTable:
    """Members of a tar as they come, each with the number of its sample: 8 bytes a member and fact, not an object."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.json = array("q")  # of each sample, the number of its json member; -1 where it has none
        self.sample_of, self.offsets, self.sizes, self.extension_of = (array("q") for _ in range(4))
        self.extensions: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._has: list[int] = []  # of each sample, one bit for each extension

    def add(self, member: TarMember) -> None:
        if not member.extension or member.key.rpartition("/")[2] == "":
            return
        extension = self.extensions.setdefault(member.extension, len(self.extensions))
        sample = self._open.get(member.key)
        # The same name again begins another sample: a tar to which a whole sample was appended twice holds it twice.
        if sample is None or self._has[sample] >> extension & 1:
            sample = self._open[member.key] = len(self.keys)
            self.keys.append(member.key)
            self._has.append(0)
            self.json.append(-1)
        self._has[sample] |= 1 << extension
        if member.extension.lower() == "json":
            self.json[sample] = len(self.offsets)
        self.sample_of.append(sample)
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.extension_of.append(extension)

    def members_of(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Members of the samples (rising), sample by sample, and where each sample begins in them, (s + 1,)."""
        sample_of = np.frombuffer(self.sample_of, np.int64)
        order = np.argsort(sample_of, kind="stable")
        counts = np.bincount(sample_of, minlength=len(self.keys))
        wanted = np.zeros(len(self.keys), np.bool_)
        wanted[samples] = True
        return order[wanted[sample_of[order]]], np.concatenate(([0], np.cumsum(counts[samples])))


def _json_uids(store: Store, tar: str, table: _SampleTable) -> tuple[UidArray, NDArray[np.int64]]:
    """Uids of the samples that have one, and the numbers of these samples."""
    text, known = bytearray(), array("q")
    with store.reader(tar) as reader:
        for sample, (key, member) in enumerate(zip(table.keys, table.json, strict=True)):
            if member < 0:
                continue
            uid = _json_uid(reader, tar, f"{key}.json", table.offsets[member], table.sizes[member])
            if uid is not None:
                text += uid.encode()
                known.append(sample)
    uids = parse_hex(np.frombuffer(text, np.uint8).reshape(-1, 32)) if known else np.empty(0, UID_DTYPE)
    return uids, np.frombuffer(known, np.int64)


def _json_uid(reader: RangeReader, tar: str, name: str, offset: int, size: int) -> str | None:
    """The uid in a json member as it stands there; None when it has none."""
    if size > LARGEST_JSON_BYTES:
        raise PoolError(
            f"{tar}: member {name!r} has {size:,} bytes; expected at most {LARGEST_JSON_BYTES:,} of "
            "JSON: remove it or shorten it"
        )
    try:
        facts: Any = json.loads(reader.read(offset, size))
    except (ValueError, RecursionError) as error:
        raise PoolError(
            f"{tar}: member {name!r} is not JSON ({type(error).__name__}: {str(error)[:80]}); write it again"
        ) from error
    if not isinstance(facts, dict):
        raise PoolError(f"{tar}: member {name!r} holds a JSON {type(facts).__name__}; expected an object")
    uid = facts.get("uid")
    if uid is None:
        return None
    if not isinstance(uid, str) or not _HEX_UID.fullmatch(uid):
        raise PoolError(f"{tar}: member {name!r} has the uid {str(uid)[:48]!r}; expected 32 hex digits")
    return uid


def copies_from(subset: UidArray, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) int64: rows of a sorted subset equal to the one at each of ``first``, the first rows of their uids.

    Steps that double and then halve from the row itself: few pages of a large memory map are touched where copies are
    few, and a million copies of one uid take 40 steps.
    """
    words = subset.view(np.uint64).reshape(-1, 2)
    last = first.copy()
    rows = np.arange(len(first))

    def advance(rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        rows = rows[last[rows] + step < len(words)]
        same: NDArray[np.bool_] = (words[last[rows] + step] == words[first[rows]]).all(axis=1)
        last[rows[same]] += step
        return rows[same]

    step, growing = 1, advance(rows, 1)
    repeated = growing
    while len(growing):
        step *= 2
        growing = advance(growing, step)
    while step > 1:
        step //= 2
        advance(repeated, step)
    return last - first + 1


@contextmanager
def nearby(store: Store, tar: str, scratch: Path) -> Iterator[Store]:
    """The store itself where it is local; else one that holds a copy of the tar, below ``scratch`` for the time.

    Headers are small reads all over a tar, which an object store answers one by one: it is quicker to copy it whole.
    """
    if store.local:
        yield store
        return
    try:
        copy = scratch / tar
        copy.parent.mkdir(parents=True, exist_ok=True)
        with store.open(tar) as source, atomic_write(copy) as target:  # for what it says of a full disk
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
        yield Store.at(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class TarWriter:
    """Appends samples of other tars to a new one; `close` ends it. Holds about 1 MiB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self.bytes = 0

    def copy(self, reader: RangeReader, tar: str, index: TarIndex, begin: int, end: int) -> None:
        """Append the copies ``begin`` to ``end - 1`` of a tar, counted over its wanted samples, as ``{uid}-{j}``."""
        bounds = np.concatenate(([0], np.cumsum(index.copies)))
        first = int(np.searchsorted(bounds, begin, side="right")) - 1
        last = int(np.searchsorted(bounds, end, side="left"))
        keys = format_hex(index.uids[first:last]).tolist()
        extensions = [extension.encode() for extension in index.extensions]
        for sample in range(first, last):
            members = slice(index.first_member[sample], index.first_member[sample + 1])
            places = list(
                zip(
                    index.offsets[members].tolist(),
                    index.sizes[members].tolist(),
                    (extensions[i] for i in index.extension_of[members].tolist()),
                    strict=True,
                )
            )
            start = int(bounds[sample])
            for copy in range(max(begin, start) - start, min(end, int(bounds[sample + 1])) - start):
                for offset, size, extension in places:
                    name = b"%b-%d.%b" % (keys[sample - first], copy, extension)
                    self._copy_member(reader, tar, offset, size, name)

    def close(self) -> None:
        """Write the end of the archive."""
        self._append(bytes(2 * _BLOCK))
        self._append(bytes(-self.bytes % _ARCHIVE_BLOCK))
        self._write()

    def _copy_member(self, reader: RangeReader, tar: str, offset: int, size: int, name: bytes) -> None:
        start = offset - _BLOCK  # one read for the header and, nearly always, the whole member
        position, end = start, offset + size
        while position < end:
            data = reader.read(position, min(end - position, _CHUNK_BYTES))
            if not data or (position == start and len(data) < _BLOCK):
                raise cut_short(tar, end, position)
            if position == start:
                self._append(_renamed(data[:_BLOCK], name, size))
                self._append(memoryview(data)[_BLOCK:])
            else:
                self._append(data)
            position += len(data)
        self._append(bytes(-size % _BLOCK))

    def _append(self, data: bytes | memoryview) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.bytes += len(data)
        if self._pending_bytes >= _CHUNK_BYTES:
            self._write()

    def _write(self) -> None:
        self._file.write(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0


def _renamed(header: bytes, name: bytes, size: int) -> bytes:
    """The header of a member under another name. Owner, mode and time stay as they are; the size is written anew, since
    an extended header, which is not copied, may have held it."""
    if len(name) > _NAME_BYTES:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        info.name, info.size = name.decode(), size
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    new = bytearray(header)
    new[:_NAME_BYTES] = name.ljust(_NAME_BYTES, b"\0")
    new[124:136] = b"%011o\0" % size if size <= _LARGEST_OCTAL else b"\x80" + size.to_bytes(11, "big")
    if new[257:263] == b"ustar\0":
        new[345:500] = bytes(155)  # the rest of a long name
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new)
    return bytes(new)
