"""Read zip archives of millions of images: the directory of an archive, and single members.

`zipfile` takes five microseconds and 0.7 kB for each member that it finds. Here the directory is
read with `struct`, and `zipfile` reads only what is not of the usual form: archives of more than
4 GB, and members that are compressed. The names of fields are those of `zipfile.ZipInfo`; the
numbers of sections are those of PKWARE's description of the format, APPNOTE.TXT.
"""

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

IS_ENCRYPTED = 1  # flags of a member, section 4.4.4
HAS_UTF_8_NAME = 0x800
MAX_BYTES = 2**29  # what one member may unpack to
USUAL_HEADER = 512  # bytes before the content of a member; more is read a second time

# Section 4.3.12: the fields of `Member` but the name, and the lengths of the name, of the extra
# field and of the comment, which follow.
DIRECTORY_ENTRY = struct.Struct("<4s4xHH4xIIIHHH6xHI")
MEMBER_MARK, DIRECTORY_MARK, END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

# Where a member is: the number of its archive, and the fields of `Member` from the fourth on.
PLACE = np.dtype("u4,u2,u4,u8,u8,u8")
PLACE_STRUCT = struct.Struct("<IHIQQQ")

# What a directory that is damaged may raise; numbers in it may be negative or beyond 64 bits.
LIST_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    OverflowError,
    EOFError,
    MemoryError,
    NotImplementedError,  # of a version that zipfile does not know
)
READ_ERRORS = (zipfile.BadZipFile, OSError)
WRONG_CHECKSUM = "its CRC-32 is not the one in the archive"


class Member(NamedTuple):
    """What the directory of an archive says of one member."""

    filename: str
    flag_bits: int
    mode: int  # as that of a file, where the archive was made on a system that has one
    compress_type: int
    CRC: int
    compress_size: int
    file_size: int
    header_offset: int


def members_of(path: Path) -> Iterator[Member]:
    """Yield the members of an archive in the order of its directory, which is not kept.

    Raises
    ------
    one of `LIST_ERRORS`
        If it is no zip archive, or is cut off or damaged.
    OSError
        If it cannot be read.
    """
    count = 0
    with path.open("rb") as file, contextlib.suppress(struct.error):
        file.seek(max(0, file.seek(0, os.SEEK_END) - 22 - 0xFFFF))
        tail = file.read()
        left, start = struct.unpack_from("<II", tail, end_record(tail) + 12)
        file.seek(start)
        while left > 0:
            entry = DIRECTORY_ENTRY.unpack(file.read(DIRECTORY_ENTRY.size))
            mark, flags, method, checksum, compressed_size, size, *lengths, mode, offset = entry
            is_zip64 = 0xFFFFFFFF in (compressed_size, size, offset)
            if mark != DIRECTORY_MARK or is_zip64:
                break
            name_length, extra_length, comment_length = lengths
            name = decode_name(file.read(name_length))
            file.read(extra_length + comment_length)
            yield Member(name, flags, mode, method, checksum, compressed_size, size, offset)
            count += 1
            left -= DIRECTORY_ENTRY.size + name_length + extra_length + comment_length
        if count and not left:
            return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[count:]:
            encoding = "utf-8" if info.flag_bits & HAS_UTF_8_NAME else "cp437"
            yield Member(
                decode_name(info.orig_filename.encode(encoding)),
                info.flag_bits,
                info.external_attr >> 16,
                info.compress_type,
                info.CRC,
                info.compress_size,
                info.file_size,
                info.header_offset,
            )


def end_record(tail: bytes) -> int:
    """Return where the record that ends an archive begins, in the last bytes of the archive.

    A comment follows the record and may hold the record's own mark. The record is the one
    whose comment reaches to the end.

    Raises
    ------
    struct.error
        If there is none.
    """
    start = len(tail)
    while (start := tail.rfind(END_MARK, 0, start)) >= 0:
        if start + 22 + int.from_bytes(tail[start + 20 : start + 22], "little") == len(tail):
            return start
    raise struct.error


def check_offsets(path: Path, offsets: np.ndarray) -> None:
    """Check that members begin inside of their archive.

    Raises
    ------
    zipfile.BadZipFile
        If one does not.
    """
    if offsets.size and offsets.max() >= path.stat().st_size:
        raise zipfile.BadZipFile("a file in it would begin behind its end")


def decode_name(name: bytes) -> str:
    r"""Return the name of a member as text.

    The archives of macOS hold UTF-8 without the flag that says so: a name is UTF-8 wherever
    it can be, and code page 437 otherwise.

    Examples
    --------
    >>> decode_name("é".encode()), decode_name(b"\x82")
    ('é', 'é')
    """
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def read_member(file: int, place: Sequence[int]) -> bytes:
    """Return the content of a member; its checksum is checked.

    Parameters
    ----------
    file : int
        Descriptor of the archive.
    place : sequence of int
        `compress_type`, `CRC`, `compress_size`, `file_size` and `header_offset`.

    Raises
    ------
    one of `READ_ERRORS`
        If it cannot be read, is damaged, or would unpack to more than `MAX_BYTES`.
    """
    method, checksum, compressed_size, size, offset = place
    if max(compressed_size, size) > MAX_BYTES:
        raise zipfile.BadZipFile(f"it unpacks to more than {MAX_BYTES} bytes")
    data = os.pread(file, USUAL_HEADER + compressed_size, offset)
    if len(data) < 30 or not data.startswith(MEMBER_MARK):
        raise zipfile.BadZipFile("it is not where the directory of the archive says")
    start = 30 + sum(struct.unpack_from("<HH", data, 26))  # section 4.3.7
    if start > USUAL_HEADER:
        data, start = os.pread(file, compressed_size, offset + start), 0
    data = data[start : start + compressed_size]
    if method != zipfile.ZIP_STORED:
        return unpack(data, method, checksum, size)
    if zlib.crc32(data) != checksum:
        raise zipfile.BadZipFile(WRONG_CHECKSUM)
    return data


def unpack(data: bytes, method: int, checksum: int, size: int) -> bytes:
    """Return the content of a compressed member; `zipfile` checks its checksum.

    Raises
    ------
    zipfile.BadZipFile
        If it is damaged.
    RuntimeError
        If `zipfile` does not know the method.
    """
    member = zipfile.ZipInfo()
    member.compress_type, member.CRC = method, checksum
    member.compress_size, member.file_size = len(data), size
    reader = zipfile.ZipExtFile(io.BytesIO(data), "r", member)
    try:
        return reader.read()
    except zipfile.BadZipFile:
        raise zipfile.BadZipFile(WRONG_CHECKSUM) from None
    except Exception as error:  # each method has kinds of errors of its own
        raise zipfile.BadZipFile(f"its content is damaged: {error}".rstrip(": ")) from None


def unknown_compression(methods: set[int]) -> str | None:
    """Return the name of a compression that Python cannot unpack, or None if there is none."""
    for method in methods:
        try:
            unpack(b"", method, 0, 0)
        except RuntimeError:  # NotImplementedError is one
            names = zipfile.compressor_names  # type: ignore[attr-defined]  # typeshed lacks it
            return names.get(method, f"number {method}")
    return None
