"""The directory of an .npz file: which matrices it holds and at which offset."""

from __future__ import annotations

import struct
import zipfile
import zlib

from pycurate.errors import PoolError
from pycurate.io.npy import HEADER_BYTES, Matrix, embedding_dtype, parse_header
from pycurate.io.store import RangeReader, Store

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1


def read_npz_matrices(store: Store, path: str, bfloat16: frozenset[str] = frozenset()) -> dict[str, Matrix]:
    """The 2-D members of an npz file by name; members of another rank are no embeddings and left out.

    Raises
    ------
    PoolError
        Truncated or no zip file; an encrypted member or one of an unknown compression; a member whose size is not
        what its npy header says; pickled objects; a dtype that is no embedding's.
    """
    with store.open(path) as file, store.reader(path) as reader:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, EOFError, struct.error, ValueError, NotImplementedError) as error:
            raise PoolError(
                f"{path}: truncated or not an npz file ({error}); copy or download the file again"
            ) from error
        found = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            matrix = _member_matrix(reader, path, member, name, name in bfloat16)
            if matrix is not None:
                found[name] = matrix
    return found


def _member_matrix(reader: RangeReader, path: str, member: zipfile.ZipInfo, name: str, bfloat16: bool) -> Matrix | None:
    place = f"{path}: member {name!r}"
    if member.flag_bits & _ENCRYPTED:
        raise PoolError(f"{place}: encrypted; save the file with np.savez")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PoolError(f"{place}: compression {member.compress_type}; expected a file of np.savez or savez_compressed")
    deflated = member.compress_type == zipfile.ZIP_DEFLATED
    offset = _data_offset(reader, member, place)
    if offset + member.compress_size > reader.size:
        raise PoolError(f"{place}: reaches behind the end of the file; copy or download the file again")
    head = reader.read(offset, min(member.compress_size, HEADER_BYTES))
    if deflated:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEADER_BYTES)
        except zlib.error as error:
            raise PoolError(f"{place}: damaged compressed data ({error}); copy the file again") from error
    header = parse_header(head, place)
    expected = header.header_bytes + header.data_bytes
    if member.file_size != expected or (not deflated and member.compress_size != expected):
        raise PoolError(
            f"{place}: its header says shape {header.shape} {header.dtype.name}, {expected} bytes in all, but the zip "
            f"directory says {member.file_size}; write the file again"
        )
    if len(header.shape) != 2:
        return None
    dtype = embedding_dtype(header, place, bfloat16)
    rows, dimension = header.shape
    if deflated:
        stored_bytes = max(member.compress_size, 1)
        return Matrix(path, offset, rows, dimension, dtype, stored_bytes, header.header_bytes, member.CRC)
    return Matrix(path, offset + header.header_bytes, rows, dimension, dtype)


def _data_offset(reader: RangeReader, member: zipfile.ZipInfo, place: str) -> int:
    """Where the member's bytes begin: the local header repeats the name and has an extra field of its own length."""
    head = reader.read(member.header_offset, _LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or not head.startswith(b"PK\x03\x04"):
        raise PoolError(f"{place}: its header in the zip file is damaged; copy or download the file again")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)
