"""Decode one image: a JPEG, PNG or BMP file to pixels of the size and colours that are wanted.

- The first bytes decide what a file is, not its name.
- With ``grayscale`` the grey level of a colour is its luma; with ``rgb`` a grey image has three
  equal channels. What is transparent is laid on white, 16 bits become 8, and a photo is turned
  the way its EXIF orientation says.
- An image is whole if its decoder reads all of it without complaint of its pixels. What follows
  the end of the image in its file, as the video of a motion photo does, is not looked at.
- Colours are lost where a file stores colours, that is in channels of their own, though all may be
  grey, or as a palette that holds one which is not grey.
- A JPEG much larger than wanted is decoded at a half, a quarter or an eighth of its size, which
  saves most of the time: the decoder leaves out the fine detail that resizing would average away.
"""

from typing import NamedTuple

import cv2
import numpy as np

from common.image_files import BadImageError, check_size, holds_colour
from common.jpeg import decode_jpeg
from common.params import CHANNELS, ColorMode
from common.png import PNG, decode_png

# A damaged image becomes an error with its name; OpenCV's own word to stderr has no name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

JPEG, BMP = b"\xff\xd8\xff", b"BM"
LONGEST_BMP = 1_000_000  # pixels of a side, as of PNG; OpenCV takes a few more


class DecodedImage(NamedTuple):
    """An image, and what was dropped of it.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (image_size, image_size, 1 or 3)
        Grey levels, or red, green and blue; 0 to 255.
    lost_colour : bool
        Whether the file stores colours, of which the grey levels alone are left.
    """

    pixels: np.ndarray
    lost_colour: bool


def decode(data: bytes, image_size: int, color_mode: ColorMode = "grayscale") -> DecodedImage:
    """Decode one image and resize it.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG or BMP file of any size and colours.
    image_size : int
        Height and width wanted, in pixels. Shrinking averages over areas, enlarging is
        bilinear; the aspect ratio is not kept, as in Keras's `flow_from_directory`.
    color_mode : str
        ``grayscale`` or ``rgb``.

    Raises
    ------
    BadImageError
        If the bytes are not such a file, are cut off or damaged, or hold more than
        `MAX_PIXELS` pixels.
    """
    if not data:
        raise BadImageError("the file is empty")
    if data.startswith(JPEG):
        pixels, has_colour = decode_jpeg(data, image_size, color_mode)
    elif data.startswith(PNG):
        pixels, has_colour = decode_png(data, color_mode)
    elif data.startswith(BMP):
        pixels, has_colour = decode_bmp(data, color_mode)
    else:
        raise BadImageError("not a JPEG, PNG or BMP image")
    if pixels.shape[:2] != (image_size, image_size):
        shrinks = min(pixels.shape[:2]) > image_size
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (image_size, image_size), interpolation=interpolation)
    pixels = pixels.reshape(image_size, image_size, CHANNELS[color_mode])
    return DecodedImage(pixels, has_colour and color_mode == "grayscale")


def decode_bmp(data: bytes, color_mode: ColorMode) -> tuple[np.ndarray, bool]:
    """Decode a BMP file.

    Returns
    -------
    (ndarray of uint8, bool)
        The pixels; whether the file stores colours.

    Raises
    ------
    BadImageError
        If the image is cut off, damaged or too large.
    """
    header = int.from_bytes(data[14:18], "little")  # its size
    is_old = header == 12  # of OS/2
    width = number_in(data, 18, 2 if is_old else 4)
    height = number_in(data, 20, 2) if is_old else number_in(data, 22, 4)
    bits = number_in(data, 24 if is_old else 28, 2)  # of a pixel
    check_size(abs(height), width, LONGEST_BMP)  # a height below zero: the first row is the top
    flag = cv2.IMREAD_GRAYSCALE if color_mode == "grayscale" else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadImageError("the image is damaged")
    if bits > 8:
        return pixels, True
    start, entry = 14 + header, 3 if is_old else 4
    colours = (0 if is_old else number_in(data, 46, 4)) or 1 << bits
    return pixels, holds_colour(data[start : start + entry * colours], entry)


def number_in(data: bytes, at: int, size: int) -> int:
    """Return a number in a BMP file's header, in which those of four bytes have a sign."""
    return int.from_bytes(data[at : at + size], "little", signed=size == 4)
