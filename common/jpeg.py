"""Decode a JPEG file: whole as libjpeg sees it, or refused with the reason.

simplejpeg reports what libjpeg warns of, but the first warning alone. Some warnings say nothing
of the picture: they are of an unknown version of JFIF or Adobe transform, of a broken colour
profile, of stray bytes before the rows. A file that libjpeg warns of is therefore decoded once
more, from a copy in which all of that is put right; what it still warns of then is damage:

- "premature end", "bad Huffman code", "bad arithmetic code", "instead of RST": the rows from
  there on are wrong or missing.
- "Inconsistent progression sequence": scans are missing.
- "extraneous bytes" within the picture: they were to be part of it, and were misread.

Extraneous bytes before the end mark are no damage where the rows are stored one after the other,
as in all but progressive files: all rows were read before. Some cameras write such bytes.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from common.image_files import BadImageError, check_size, orientation_in, turned
from common.params import ColorMode

Image.MAX_IMAGE_PIXELS = None  # the limit is `check_size`; Pillow would warn below it

LONGEST_SIDE = 65_500  # libjpeg's own limit

# Before a marker anything may stand. FF 00 is none, but an FF of the picture itself; markers
# without a length, but that of the end, say nothing here.
MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
MARKER_AND_LENGTH = struct.Struct(">HH")
END, SCAN, COMMENT = 0xFFD9, 0xFFDA, 0xFFFE
APP0, APP1, APP14, APP15 = 0xFFE0, 0xFFE1, 0xFFEE, 0xFFEF
WITH_LENGTH = frozenset((*range(0xFF02, 0xFFD0), *range(0xFFD8, 0xFFFF))) - {END}

SEQUENTIAL = (0xFFC0, 0xFFC1, 0xFFC9)  # frames whose rows are stored one after the other
PROGRESSIVE = (0xFFC2, 0xFFCA)
UNREADABLE = {0xFFC3: "lossless", 0xFFCB: "lossless", 0xFFF7: "a JPEG-LS"} | dict.fromkeys(
    (0xFFC5, 0xFFC6, 0xFFC7, 0xFFCD, 0xFFCE, 0xFFCF, 0xFFDE), "hierarchical"
)
FRAMES = frozenset((*SEQUENTIAL, *PROGRESSIVE, *UNREADABLE))
FRAME = struct.Struct(">HxxBHHB")  # marker, length, bits, height, width, channels

END_MARK, EXIF, JFIF, ADOBE = b"\xff\xd9", b"Exif\x00\x00", b"JFIF\x00", b"Adobe"
ADOBE_TRANSFORM = 15  # where it stands in its segment
SURPLUS = re.compile(r"\d+ extraneous bytes before marker 0xd9")


class Frame(NamedTuple):
    """What a JPEG file says of its rows: the marker tells the kind; bits are those of a sample."""

    marker: int
    bits: int
    height: int
    width: int
    channels: int


def decode_jpeg(data: bytes, image_size: int, color_mode: ColorMode) -> tuple[np.ndarray, bool]:
    """Decode a JPEG file, turned as its EXIF orientation says.

    Returns
    -------
    (ndarray of uint8, bool)
        The pixels, at least `image_size` high and wide where the file has as many; whether
        the file stores colours.

    Raises
    ------
    BadImageError
        If the image is cut off, damaged, too large or of a kind that cannot be read.
    """
    frame, orientation = header_of(data)
    marker, bits, height, width, channels = frame
    if marker in UNREADABLE or bits != 8 or channels not in (1, 3, 4) or not height:
        raise BadImageError(unreadable(Frame(*frame)))
    check_size(height, width, LONGEST_SIDE)
    try:
        pixels = decode_with_libjpeg(data, image_size, color_mode)
    except ValueError:
        pixels = decode_doubtful(data, Frame(*frame), image_size, color_mode)
    return turned(pixels, orientation), channels > 1


def header_of(data: bytes) -> tuple[tuple[int, ...], int]:
    """Return what a file says before its rows: the fields of `Frame`, and the EXIF orientation.

    The kind and the size must be those that libjpeg finds: simplejpeg takes memory by the size,
    and of a lossless image that is to become smaller it would write beyond that memory.
    """
    frame, orientation, at = None, None, 2
    try:
        while True:
            marker, length = MARKER_AND_LENGTH.unpack_from(data, at)
            if marker in FRAMES:
                frame = frame or FRAME.unpack_from(data, at)
            elif marker == SCAN:
                if frame:
                    return frame, orientation or 1
            elif marker not in WITH_LENGTH:
                found = MARKER.search(data, at)
                if marker == END or not found:
                    break
                at = found.end() - 2
                continue
            elif marker == APP1 and not orientation and data.startswith(EXIF, at + 4):
                orientation = orientation_in(data[at + 4 + len(EXIF) : at + 2 + length])
            at += 2 + length
    except struct.error:  # the data ends
        pass
    raise BadImageError("the image is damaged" if END_MARK in data else "the image is cut off")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments of a JPEG file as libjpeg finds them, the last one at its end mark.

    Each is its marker, where that stands, and where the content ends, behind which anything may
    stand before the next.
    """
    end = 2
    while found := MARKER.search(data, end):
        at = found.end() - 2
        end = at + 2
        marker = int.from_bytes(data[at:end], "big")
        if marker != END:
            end += int.from_bytes(data[end : end + 2], "big")
        yield marker, at, end
        if marker == END:
            return


def unreadable(frame: Frame) -> str:
    """Return the words for a kind of JPEG that cannot be read, in both color modes, into 8 bits."""
    if frame.marker in UNREADABLE:
        kind = f"is {UNREADABLE[frame.marker]}"
    elif frame.bits != 8:
        kind = f"has {frame.bits} bits a sample"
    elif frame.height:
        kind = f"has {frame.channels} channels"
    else:
        kind = "tells its height behind its rows"
    return f"the JPEG {kind}, which is not read; save it as a usual JPEG or a PNG"


def decode_with_libjpeg(
    data: bytes, image_size: int, color_mode: ColorMode, *, strict: bool = True
) -> np.ndarray:
    """Return the pixels; raise `ValueError` with libjpeg's words, where `strict` for a warning."""
    return simplejpeg.decode_jpeg(
        data,
        "GRAY" if color_mode == "grayscale" else "RGB",
        min_height=image_size,
        min_width=image_size,
        strict=strict,
    )


def decode_doubtful(
    data: bytes, frame: Frame, image_size: int, color_mode: ColorMode
) -> np.ndarray:
    """Return the pixels of a file that libjpeg warns of; refuse it if they are not all right."""
    data = put_right(data, frame)
    try:
        return decode_with_libjpeg(data, image_size, color_mode)
    except ValueError as error:
        reason = str(error).removeprefix("Corrupt JPEG data: ")
    if "subsampling" in reason:
        return decode_with_pillow(data, color_mode)
    if SURPLUS.fullmatch(reason) and frame.marker in SEQUENTIAL:
        return decode_with_libjpeg(data, image_size, color_mode, strict=False)
    if reason == "Premature end of JPEG file":
        raise BadImageError("the image is cut off")
    raise BadImageError(f'the image is damaged: libjpeg says "{reason}"')


def put_right(data: bytes, frame: Frame) -> bytes:
    """Return a JPEG file without what libjpeg may warn of though it says nothing of the picture.

    Comments and data for other programs are left out, as are stray bytes before the rows. The
    version of JFIF, an Adobe transform that does not exist, of which libjpeg takes the usual one,
    and the parameters of a scan that has no use for them are replaced.
    """
    parts, last, has_rows = [data[:2]], 2, False
    for marker, at, end in segments(data):
        if has_rows:
            parts.append(data[last:at])
        segment, last = data[at:end], end
        if marker == SCAN:
            has_rows = True
            if frame.marker in SEQUENTIAL:
                segment = segment[:-3] + b"\x00\x3f\x00"
        elif marker == APP0 and segment[4:9] == JFIF:
            segment = segment[:9] + b"\x01\x01" + segment[11:]
        elif marker == APP14 and segment[4:9] == ADOBE and len(segment) > ADOBE_TRANSFORM:
            usual = 1 if frame.channels == 3 else 2
            transform = bytes([usual if segment[ADOBE_TRANSFORM] else 0])
            segment = segment[:ADOBE_TRANSFORM] + transform + segment[ADOBE_TRANSFORM + 1 :]
        elif APP0 <= marker <= APP15 or marker == COMMENT:
            continue
        parts.append(segment)
    if not data.startswith(END_MARK, last - 2):
        parts.append(data[last:])  # libjpeg is to say that the end is missing
    return b"".join(parts)


def decode_with_pillow(data: bytes, color_mode: ColorMode) -> np.ndarray:
    """Return the pixels of a file whose rare way to store colours coarsely simplejpeg refuses.

    Pillow tells no warnings. A file without its end mark is cut off at least.
    """
    if not data.endswith(END_MARK):
        raise BadImageError("the image is cut off")
    mode = "L" if color_mode == "grayscale" else "RGB"
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.draft(mode, None)  # libjpeg's own grey levels, as of other files
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, struct.error):
        raise BadImageError("the image is damaged") from None
