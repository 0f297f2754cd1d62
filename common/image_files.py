"""What JPEG, PNG and BMP files have in common: when one is refused, and how a photo is turned."""

import struct

import numpy as np

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory

ORIENTATION = 0x0112  # the tag of the EXIF standard
WHOLE_NUMBERS = {3: "H", 4: "I"}  # the types of a tag that hold one: the standard's, and a longer


class BadImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


def check_size(height: int, width: int, longest_side: int) -> None:
    """Refuse an image that is too large, before any memory is taken for its pixels.

    Raises
    ------
    BadImageError
        If it has more than `MAX_PIXELS` pixels, or a side above `longest_side`.
    """
    if height * width > MAX_PIXELS:
        raise BadImageError("more than 2^27 pixels")
    if max(height, width) > longest_side:
        raise BadImageError(f"more than {longest_side:,} pixels high or wide")


def orientation_in(exif: bytes) -> int:
    """Return the orientation that EXIF data tells: 1, which is upright, to 8.

    Data without one, or that is damaged, counts as upright.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, at)
            if tag == ORIENTATION and kind in WHOLE_NUMBERS:
                (value,) = struct.unpack_from(order + WHOLE_NUMBERS[kind], exif, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels upright whose EXIF orientation is given."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def holds_colour(palette: bytes, step: int) -> bool:
    """Tell whether a palette has a colour that is not grey: one in each `step` bytes."""
    first, second, third = (palette[sample::step] for sample in range(3))
    return not first == second == third
