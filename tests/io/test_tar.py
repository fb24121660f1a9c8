"""Tar members by their headers, as tarfile writes them and as an attacker would."""

from __future__ import annotations

import io
import tarfile

import pytest

from pycurate.errors import PoolError
from pycurate.io.store import Store
from pycurate.io.tar import TarMember, tar_members


def write(path, names, tar_format=tarfile.USTAR_FORMAT, **facts) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            for key, value in facts.items():
                setattr(info, key, value)
            data = bytes([number % 256]) * (number * 300)
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))


def members(path) -> list[TarMember]:
    return list(tar_members(Store.at(path.parent), path.name))


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_what_tarfile_finds(tmp_path, tar_format) -> None:
    names = ["000000000.jpg", "000000000.seg.png", "dir.x/a.b.txt", "noextension", "über/北京.json", ".hidden"]
    names.append("d/" * 45 + "a_long_name.jpg")
    if tar_format != tarfile.USTAR_FORMAT:
        names.append("x" * 300 + ".jpg")
    write(tmp_path / "a.tar", names, tar_format)
    with tarfile.open(tmp_path / "a.tar") as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar]
    found = members(tmp_path / "a.tar")
    assert [(m.name, m.offset, m.size) for m in found] == expected
    assert [m.name for m in found] == names
    data = (tmp_path / "a.tar").read_bytes()
    for number, member in enumerate(found):
        assert data[member.offset : member.offset + member.size] == bytes([number]) * (number * 300)


def test_names_are_split_at_the_first_dot_of_the_base_name(tmp_path) -> None:
    write(tmp_path / "a.tar", ["000.jpg", "000.seg.png", "dir.x/a.b.txt", "plain", "d/.hidden"])
    assert [(m.key, m.extension) for m in members(tmp_path / "a.tar")] == [
        ("000", "jpg"),
        ("000", "seg.png"),
        ("dir.x/a", "b.txt"),
        ("plain", ""),
        ("d/", "hidden"),
    ]


def test_folders_are_skipped_and_an_empty_tar_has_no_member(tmp_path) -> None:
    write(tmp_path / "a.tar", ["d"], type=tarfile.DIRTYPE)
    write(tmp_path / "b.tar", [])
    assert members(tmp_path / "a.tar") == members(tmp_path / "b.tar") == []


def test_a_long_name_belongs_to_one_member_only(tmp_path) -> None:
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        write(tmp_path / "a.tar", ["x" * 200, "short.jpg"], tar_format)
        assert [m.name for m in members(tmp_path / "a.tar")] == ["x" * 200, "short.jpg"]


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "..", "a\\..\\b", "\\x"])
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_point_outside_are_refused(tmp_path, name, tar_format) -> None:
    write(tmp_path / "a.tar", ["000.jpg", name], tar_format)
    with pytest.raises(PoolError, match=r"a\.tar: member '.*' points outside the archive; refused"):
        members(tmp_path / "a.tar")


def test_names_with_two_dots_inside_are_fine(tmp_path) -> None:
    write(tmp_path / "a.tar", ["a..b.jpg", "..x/y.jpg"])
    assert [m.key for m in members(tmp_path / "a.tar")] == ["a", "..x/y"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind) -> None:
    write(tmp_path / "a.tar", ["x"], type=kind, linkname="/etc/passwd")
    with pytest.raises(PoolError, match="member 'x' is a link or a device"):
        members(tmp_path / "a.tar")


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 1024, 2 * 512 + 300, 3 * 512])
def test_a_cut_tar_is_an_error_wherever_it_is_cut(tmp_path, keep) -> None:
    """The second member has 300 bytes: cut in a header, in data, between members, before the end blocks."""
    write(tmp_path / "a.tar", ["a.jpg", "b.jpg"])
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:keep])
    with pytest.raises(PoolError, match=r"a\.tar: truncated: .*copy or download it again"):
        members(tmp_path / "a.tar")


def test_what_is_no_tar_is_an_error(tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(b"this is not a tar file. " * 100)
    with pytest.raises(PoolError, match="not a tar file or damaged: bad header at byte 0"):
        members(tmp_path / "a.tar")
    write(tmp_path / "a.tar", ["a.jpg", "b.jpg", "c.jpg"])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[512 + 10] ^= 1
    (tmp_path / "a.tar").write_bytes(bytes(data))
    with pytest.raises(PoolError, match="bad header at byte 512"):
        members(tmp_path / "a.tar")


def with_size(header: bytearray, size: bytes) -> bytes:
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_sizes_beyond_octal_and_lying_sizes(tmp_path) -> None:
    write(tmp_path / "a.tar", ["a.jpg", "b.jpg"])
    data = (tmp_path / "a.tar").read_bytes()
    base256 = with_size(bytearray(data[512:1024]), b"\x80" + (300).to_bytes(11, "big"))
    (tmp_path / "a.tar").write_bytes(data[:512] + base256 + data[1024:])
    assert [m.size for m in members(tmp_path / "a.tar")] == [0, 300]
    lying = with_size(bytearray(data[512:1024]), b"\x80" + (1 << 60).to_bytes(11, "big"))
    (tmp_path / "a.tar").write_bytes(data[:512] + lying + data[1024:])
    with pytest.raises(PoolError, match=r"truncated: member 'b\.jpg' needs bytes up to"):
        members(tmp_path / "a.tar")


def test_extended_headers_that_lie(tmp_path) -> None:
    write(tmp_path / "a.tar", ["x" * 300], tarfile.PAX_FORMAT)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[512:515] = b"999"
    (tmp_path / "a.tar").write_bytes(bytes(data))
    with pytest.raises(PoolError, match="damaged extended header"):
        members(tmp_path / "a.tar")
    info = tarfile.TarInfo("name")
    info.type, info.size = b"L", 1 << 20
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1 << 20) + bytes(1024))
    with pytest.raises(PoolError, match="an extended header of 1048576 bytes; expected at most 65536"):
        members(tmp_path / "a.tar")
