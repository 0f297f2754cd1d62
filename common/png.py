"""Decode a PNG file by libpng, with nothing left for libpng to say.

The libpng of OpenCV writes what it thinks of a file to the standard error stream, without the
file's name, and no setting stops it. So it gets none of the file but what the picture needs, once
that is checked: the checksums, and that there are as many bytes as the rows take. All else, such
as colour profiles and animations, is left out, as programs that do not know it would do. The rows
are unpacked for that here, and are handed on unpacked.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from common.image_files import BadImageError, check_size, holds_colour, orientation_in, turned
from common.params import ColorMode

PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
LONGEST_SIDE = 1_000_000  # libpng's own limit

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}  # of a pixel
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    COLOUR: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    COLOUR_ALPHA: (8, 16),
}
FILTERS = 5  # ways to store a row, told by its first byte

# Of each pass of an interlaced image: its first column and row, the steps to the next ones.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
ALL_AT_ONCE = ((0, 0, 1, 1),)

STORED_BLOCK = 65_535  # bytes that zlib's format holds in a block that is not compressed
CUT_OFF, DAMAGED = "the image is cut off", "the image is damaged"


class Header(NamedTuple):
    """The first chunk of a PNG file."""

    width: int
    height: int
    depth: int
    kind: int
    compression: int
    filtering: int
    interlace: int


def decode_png(data: bytes, color_mode: ColorMode) -> tuple[np.ndarray, bool]:
    """Decode a PNG file and lay it on white, turned as its EXIF orientation says.

    Returns
    -------
    (ndarray of uint8, bool)
        The pixels; whether the file stores colours.

    Raises
    ------
    BadImageError
        If the image is cut off, damaged or too large.
    """
    chunks = chunks_of(data)
    header = header_of(chunks)
    check_size(header.height, header.width, LONGEST_SIDE)
    palette, transparency = palette_of(header, chunks), transparency_of(header, chunks)
    rows = rows_of(header, chunks.get(b"IDAT", b""))
    file = bare_file(chunks[b"IHDR"], palette, transparency, rows)
    if header.depth == 16 or transparency or header.kind in (GREY_ALPHA, COLOUR_ALPHA):
        pixels = read_by_libpng(file, cv2.IMREAD_UNCHANGED)
        pixels = in_mode(on_white(pixels, header, transparency), color_mode)
    else:
        is_grey = color_mode == "grayscale"
        pixels = read_by_libpng(file, cv2.IMREAD_GRAYSCALE if is_grey else cv2.IMREAD_COLOR_RGB)
    has_colour = header.kind in (COLOUR, COLOUR_ALPHA) or holds_colour(palette, 3)
    return turned(pixels, orientation_in(chunks.get(b"eXIf", b""))), has_colour


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    """Return the contents of the chunks that matter, by their kinds; those of the rows as one.

    Raises
    ------
    BadImageError
        If the end is not there, or one of these chunks is not as it was written.
    """
    if PNG_END not in data:
        raise BadImageError(CUT_OFF)
    if data[12:16] != b"IHDR":  # by the standard the first
        raise BadImageError(DAMAGED)
    found: dict[bytes, bytes] = {}
    rows = []
    at = len(PNG)
    try:
        while True:
            length, kind = struct.unpack_from(">I4s", data, at)
            end = at + 8 + length
            (checksum,) = struct.unpack_from(">I", data, end)
            is_needed = kind in NEEDED
            if is_needed or kind == b"eXIf":
                content = data[at + 8 : end]
                if zlib.crc32(content, zlib.crc32(kind)) == checksum:
                    if kind == b"IDAT":
                        rows.append(content)
                    else:
                        found.setdefault(kind, content)
                elif is_needed:
                    raise BadImageError(DAMAGED)
            elif kind[:1].isupper():  # by the standard no picture can be made without it
                raise BadImageError(DAMAGED)
            if kind == b"IEND":
                break
            at = end + 4
    except struct.error:
        raise BadImageError(DAMAGED) from None
    found[b"IDAT"] = rows[0] if len(rows) == 1 else b"".join(rows)
    return found


def header_of(chunks: dict[bytes, bytes]) -> Header:
    """Read the first chunk; raise `BadImageError` if it is not as the standard has it."""
    try:
        header = Header(*struct.unpack(">IIBBBBB", chunks[b"IHDR"]))
    except (KeyError, struct.error):
        raise BadImageError(DAMAGED) from None
    if (
        not header.width
        or not header.height
        or header.depth not in DEPTHS.get(header.kind, ())
        or header.compression
        or header.filtering
        or header.interlace > 1
    ):
        raise BadImageError(DAMAGED)
    return header


def palette_of(header: Header, chunks: dict[bytes, bytes]) -> bytes:
    """Return the colours that a pixel may name; none if the image has no need of a palette."""
    if header.kind != PALETTE:
        return b""
    palette = chunks.get(b"PLTE", b"")
    if not palette or len(palette) % 3:
        raise BadImageError(DAMAGED)
    return palette[: 3 << header.depth]


def transparency_of(header: Header, chunks: dict[bytes, bytes]) -> bytes:
    """Return what tells the transparent pixels: their colour, or how opaque the palette is."""
    transparency = chunks.get(b"tRNS", b"")
    if header.kind == PALETTE:
        return transparency[: len(chunks[b"PLTE"]) // 3]
    is_colour = len(transparency) == {GREY: 2, COLOUR: 6}.get(header.kind)
    return transparency if is_colour else b""


def rows_of(header: Header, packed: bytes) -> bytes:
    """Unpack the rows, each with the number of its filter before it, and check that all are there.

    A few bytes too many are left out, as libpng does with a warning.
    """
    passes = list(passes_of(header))
    size = sum(rows * length for rows, length in passes)
    inflate = zlib.decompressobj()
    try:
        unpacked = inflate.decompress(packed, size)
        inflate.decompress(inflate.unconsumed_tail, 1)  # reads zlib's own checksum
    except zlib.error:
        raise BadImageError(DAMAGED) from None
    if len(unpacked) < size:
        raise BadImageError(CUT_OFF)
    at = 0
    for rows, length in passes:
        if max(unpacked[at : at + rows * length : length]) >= FILTERS:
            raise BadImageError(DAMAGED)
        at += rows * length
    return unpacked


def passes_of(header: Header) -> Iterator[tuple[int, int]]:
    """Yield of each pass in which the image is stored the number of rows, and bytes of a row."""
    bits = header.depth * SAMPLES[header.kind]
    for x, y, step_x, step_y in ADAM7 if header.interlace else ALL_AT_ONCE:
        columns = -((x - header.width) // step_x)
        rows = -((y - header.height) // step_y)
        if columns > 0 and rows > 0:
            yield rows, 1 + (columns * bits + 7) // 8


def bare_file(first: bytes, palette: bytes, transparency: bytes, rows: bytes) -> bytes:
    """Return a PNG file of what the picture needs, its rows unpacked."""
    blocks: list[bytes | memoryview] = [b"\x78\x01"]
    for at in range(0, len(rows), STORED_BLOCK):
        block = memoryview(rows)[at : at + STORED_BLOCK]
        is_last = at + STORED_BLOCK >= len(rows)
        blocks += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    blocks.append(struct.pack(">I", zlib.adler32(rows)))
    chunks = [chunk(b"IHDR", first)]
    if palette:
        # A pixel may name a colour that is not there; libpng would show black and say so.
        chunks.append(chunk(b"PLTE", palette.ljust(3 << first[8], b"\x00")))
    if transparency:
        chunks.append(chunk(b"tRNS", transparency))
    return b"".join([PNG, *chunks, chunk(b"IDAT", b"".join(blocks)), chunk(b"IEND", b"")])


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)])


def read_by_libpng(file: bytes, flag: int) -> np.ndarray:
    """Return the pixels of a bare file."""
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadImageError(DAMAGED)
    return pixels


def on_white(pixels: np.ndarray, header: Header, transparency: bytes) -> np.ndarray:
    """Lay pixels on white as far as they are transparent; return 8 bits of each sample.

    Parameters
    ----------
    pixels : ndarray of uint8 or uint16, shape (height, width) or (height, width, 3 or 4)
        Grey levels, or blue, green, red and how opaque they are.
    header : Header
        The file's.
    transparency : bytes
        Of grey levels the one that is transparent, not yet scaled to 8 bits; else not looked at.

    Returns
    -------
    ndarray of uint8, shape (height, width) or (height, width, 3)
    """
    white = int(np.iinfo(pixels.dtype).max)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opacity = cv2.extractChannel(pixels, 3)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
        # Rounded once: white is added in whole numbers.
        pixels = cv2.multiply(pixels, cv2.merge([opacity] * 3), scale=1 / white)
        pixels = cv2.add(pixels, cv2.merge([white - opacity] * 3))
    elif transparency:
        largest = (1 << header.depth) - 1
        transparent = (int.from_bytes(transparency, "big") & largest) * (white // largest)
        pixels = np.where(pixels == transparent, pixels.dtype.type(white), pixels)
    return cv2.convertScaleAbs(pixels, alpha=255 / white) if white > 255 else pixels


def in_mode(pixels: np.ndarray, color_mode: ColorMode) -> np.ndarray:
    """Return grey levels, or blue, green and red, in the color mode that is wanted."""
    if pixels.ndim == 2:
        is_wanted = color_mode == "grayscale"
        return pixels if is_wanted else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    is_grey = color_mode == "grayscale"
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if is_grey else cv2.COLOR_BGR2RGB)
