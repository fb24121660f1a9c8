"""Where a pool's files lie: a local folder or an fsspec URL, listed once and read by byte ranges."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from pycurate.errors import MissingDependencyError, PoolError

SUFFIXES = (".parquet", ".npy", ".npz", ".tar")
"""What the layouts look at; every other file of a pool's folder is ignored."""

RUN_MARKER = "pycurate.json"
"""A folder with this file is the output of a run, not part of a pool: it is skipped with all that lies below."""

_SMALL_READ_BYTES = 4096
_WINDOW_BYTES = 1 << 20
_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_STAMPS = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Size in bytes and what changes when the file does: the time of modification, or the ETag of an object store."""

    size: int
    stamp: str


class RangeReader(Protocol):
    """One open file, read by byte ranges."""

    size: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset`` on; PoolError when the file ends before."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on; fewer at the end of the file."""
        ...


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of a pool. Small and picklable: files are opened by the process that reads them.

    Parameters
    ----------
    root
        Absolute path of a local folder, or an fsspec URL such as ``s3://bucket/pool``, without a slash at the end.
    """

    root: str

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Store:
        """The store at a local path or URL; ``file://`` URLs are local paths."""
        text = os.fspath(path)
        if text.startswith(("file://", "local://")):
            import fsspec  # here and below: 50 ms, with asyncio and ssl, that a local path need not spend

            text = cast(str, fsspec.filesystem("file")._strip_protocol(text))
        if not _URL.match(text):
            return cls(os.path.abspath(os.path.expanduser(text)))
        return cls(text.rstrip("/"))

    @property
    def local(self) -> bool:
        """True when files are read by the operating system, without fsspec."""
        return not _URL.match(self.root)

    def location(self, path: str) -> str:
        """Full path or URL of a file of the pool."""
        return os.path.join(self.root, *path.split("/")) if self.local else f"{self.root}/{path}"

    def files(self, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, FileInfo]:
        """Every parquet, npy, npz and tar file below the root by relative path (forward slashes), sorted.

        Or, with ``suffixes``, every file whose name ends in one of them.

        Names that begin with a dot or an underscore are skipped, with all that lies below them. If the root is itself
        such a file, it is the only one, under its base name; see `folder`.
        """
        found = dict(self._local_files(suffixes) if self.local else self._remote_files(suffixes))
        return dict(sorted(found.items()))

    def is_file(self) -> bool:
        """True when the root is a file, not a folder."""
        if self.local:
            return os.path.isfile(self.root)
        file_system, root = self._file_system()
        return bool(file_system.isfile(root))

    def folder(self) -> Store:
        """The store of the folder that holds the root."""
        return Store(self.root.rsplit("/", 1)[0] if not self.local else os.path.dirname(self.root))

    def exists(self) -> bool:
        """True when the root is there."""
        if self.local:
            return os.path.exists(self.root)
        file_system, root = self._file_system()
        return bool(file_system.exists(root))

    def info(self, path: str) -> FileInfo:
        """Size and stamp of one file as they are now."""
        try:
            if self.local:
                return _local_info(os.stat(self.location(path)))
            file_system, root = self._file_system()
            return _remote_info(file_system.info(f"{root}/{path}"))
        except OSError as error:
            raise unreadable(path, error) from error

    def open(self, path: str) -> BinaryIO:
        """A seekable binary file, for libraries that want one."""
        try:
            if self.local:
                return open(self.location(path), "rb", buffering=0)
            file_system, root = self._file_system()
            handle = file_system.open(f"{root}/{path}", "rb", block_size=1 << 20, cache_type="readahead")
            return cast(BinaryIO, handle)
        except OSError as error:
            raise unreadable(path, error) from error

    @contextmanager
    def arrow_file(self, path: str) -> Iterator[pa.NativeFile]:
        """The file as Arrow reads it."""
        if not self.local:
            with self.open(path) as handle:
                yield pa.PythonFile(handle, mode="r")
            return
        try:
            file = pa.OSFile(self.location(path))
        except OSError as error:
            raise unreadable(path, error) from error
        with file:
            yield file

    @contextmanager
    def reader(self, path: str) -> Iterator[RangeReader]:
        """The file, to be read by byte ranges."""
        if not self.local:
            yield _RemoteReader(self, path, self.info(path).size)
            return
        try:
            descriptor = os.open(self.location(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            yield _LocalReader(descriptor, path, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def _file_system(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            file_system, root = url_to_fs(self.root)
        except ImportError as error:
            scheme = self.root.split("://", 1)[0]
            raise MissingDependencyError(f"pool: reading {scheme}:// URLs needs a package: {error}") from error
        except ValueError as error:
            raise PoolError(f"pool: {self.root!r} is not a URL that fsspec can read ({error})") from error
        return file_system, root.rstrip("/")

    def _local_files(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, FileInfo]]:
        for folder, folders, names in os.walk(self.root, onerror=_raise):
            folders[:] = [name for name in folders if _visible(name)]
            if RUN_MARKER in names and folder != self.root:
                folders.clear()
                continue
            relative = os.path.relpath(folder, self.root).replace(os.sep, "/")
            prefix = "" if relative == "." else relative + "/"
            for name in _relevant(names, suffixes):
                yield prefix + name, self.info(prefix + name)

    def _remote_files(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, FileInfo]]:
        file_system, root = self._file_system()
        found = {path[len(root) :].lstrip("/"): info for path, info in file_system.find(root, detail=True).items()}
        runs = tuple(path.removesuffix(RUN_MARKER) for path in found if path.endswith("/" + RUN_MARKER))
        for path, info in found.items():
            *folders, name = path.split("/")
            if (
                all(_visible(folder) for folder in folders)
                and _relevant([name], suffixes)
                and not path.startswith(runs)
            ):
                yield path, _remote_info(info)


@dataclass(slots=True)
class _LocalReader:
    descriptor: int
    path: str
    size: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        try:
            while done < len(buffer):
                count = os.preadv(self.descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise cut_short(self.path, offset + len(buffer), offset + done)
                done += count
        except OSError as error:
            raise unreadable(self.path, error) from error

    def read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as error:
            raise unreadable(self.path, error) from error


@dataclass(slots=True)
class _RemoteReader:
    """Small reads, such as of tar headers, are served from a window, so that a header does not cost a request."""

    store: Store
    path: str
    size: int
    window: bytes = b""
    window_offset: int = 0

    def read_into(self, buffer: memoryview, offset: int) -> None:
        data = self.read(offset, len(buffer))
        if len(data) < len(buffer):
            raise cut_short(self.path, offset + len(buffer), offset + len(data))
        buffer[:] = data

    def read(self, offset: int, size: int) -> bytes:
        if size > _SMALL_READ_BYTES:
            return self._fetch(offset, size)
        if not self.window_offset <= offset <= offset + size <= self.window_offset + len(self.window):
            self.window, self.window_offset = self._fetch(offset, _WINDOW_BYTES), offset
        begin = offset - self.window_offset
        return self.window[begin : begin + size]

    def _fetch(self, offset: int, size: int) -> bytes:
        if offset >= self.size:
            return b""
        file_system, root = self.store._file_system()
        try:
            data = file_system.cat_file(f"{root}/{self.path}", start=offset, end=min(offset + size, self.size))
        except OSError as error:
            raise unreadable(self.path, error) from error
        return cast(bytes, data)


def unreadable(path: str, error: Exception) -> PoolError:
    """The PoolError for a file that the operating system or the object store does not give."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return PoolError(f"{path}: cannot be read ({reason}); check that it is there and that you may read it")


def cut_short(path: str, expected: int, found: int) -> PoolError:
    """The PoolError for a file that ends too early."""
    return PoolError(
        f"{path}: truncated: expected at least {expected} bytes, found {found}; copy or download the file again"
    )


def _raise(error: OSError) -> None:
    raise unreadable(str(error.filename), error) from error


def _visible(name: str) -> bool:
    return not name.startswith((".", "_"))


def _relevant(names: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    return [name for name in names if _visible(name) and name.endswith(suffixes)]


def _local_info(status: os.stat_result) -> FileInfo:
    return FileInfo(status.st_size, str(status.st_mtime_ns))


def _remote_info(info: Mapping[str, Any]) -> FileInfo:
    stamp = next((info[key] for key in _STAMPS if info.get(key) is not None), "")
    return FileInfo(int(info["size"]), str(stamp))
