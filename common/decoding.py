"""Decode one image: a JPEG, PNG or BMP file to pixels of the size and colours that are wanted.

- The first bytes decide what a file is, not its name.
- With ``grayscale`` the grey level of a colour is its luma; with ``rgb`` a grey image has three
  equal channels. What is transparent is laid on white, 16 bits become 8, and a photo is turned
  the way its EXIF orientation says.
- An image is whole if its decoder reads all of it without complaint. What follows the end of the
  image in its file, as the video of a motion photo does, is not looked at.
- A JPEG much larger than wanted is decoded at a half, a quarter or an eighth of its size, which
  saves most of the time: the decoder leaves out the fine detail that resizing would average away.
"""

import io
import os
import re
import struct
import warnings
import zlib
from typing import NamedTuple

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it at its import

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from common.params import CHANNELS, ColorMode  # noqa: E402

# A damaged image becomes an error with its name; OpenCV's own word to stderr has no name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

TOO_LARGE = "more than 2^27 pixels"

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"

JPEG_SCAN, JPEG_END, PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND\xaeB`\x82"

EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)  # the length is in the parentheses

ORIENTATION = 0x0112  # the tag of the EXIF standard
PNG_COLOUR_TYPES = (2, 3, 6)  # true colour, palette, true colour with transparency


class BadImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


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
        if has_transparency(data):
            pixels = decode_transparent_png(data, color_mode)
        else:
            pixels = decode_with_opencv(data, color_mode, whole=PNG_END in data)
        has_colour = data[25] in PNG_COLOUR_TYPES
    elif data.startswith(BMP):
        pixels = decode_with_opencv(data, color_mode, whole=True)
        has_colour = int.from_bytes(data[28:30], "little") > 8  # bits a pixel
    else:
        raise BadImageError("not a JPEG, PNG or BMP image")
    if pixels.shape[:2] != (image_size, image_size):
        shrinks = min(pixels.shape[:2]) > image_size
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (image_size, image_size), interpolation=interpolation)
    pixels = pixels.reshape(image_size, image_size, CHANNELS[color_mode])
    return DecodedImage(pixels, has_colour and color_mode == "grayscale")


def decode_jpeg(data: bytes, image_size: int, color_mode: ColorMode) -> tuple[np.ndarray, bool]:
    """Decode a JPEG file, turned as its EXIF orientation says.

    simplejpeg reports what libjpeg warns of. OpenCV would fill in what is damaged or
    missing and say nothing.

    Returns
    -------
    (ndarray of uint8, bool)
        The pixels, at least `image_size` high and wide where the file has as many; whether
        the file stores colours.

    Raises
    ------
    BadImageError
        If the image is cut off or damaged, or holds more than `MAX_PIXELS` pixels.
    """
    try:
        height, width, stored_as, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS:
            raise BadImageError(TOO_LARGE)
        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if color_mode == "grayscale" else "RGB",
            min_height=image_size,
            min_width=image_size,
        )
    except (ValueError, KeyError) as error:
        reason = str(error).removeprefix("Corrupt JPEG data: ")
        if isinstance(error, KeyError) or "subsampling" in reason:
            # simplejpeg has no name for a rare way to store colours coarsely, and no other
            # word for a file without a header. Inside a scan no end mark can stand, so that
            # a whole file has one after its last scan.
            is_whole = data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
            return decode_with_opencv(data, color_mode, whole=is_whole), True
        if reason == "Premature end of JPEG file":
            raise BadImageError("the image is cut off") from None
        raise BadImageError(f'the image is damaged: libjpeg says "{reason}"') from None
    orientation = orientation_of(data)
    if orientation != 1:
        pixels = turned(pixels, orientation)
    return pixels, stored_as != "Gray"


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG file: 1, which is upright, to 8.

    A file without one, or whose EXIF data is damaged, counts as upright.
    """
    segment = EXIF.search(data, 0, data.find(JPEG_SCAN))  # behind it may be another image
    if not segment:
        return 1
    start, length = segment.start(1), int.from_bytes(segment[1], "big")
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of other tags that are damaged
        try:
            exif.load(data[start + 2 : start + length])
            return exif.get(ORIENTATION, 1)
        except (SyntaxError, ValueError, OSError, struct.error):
            return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels upright whose EXIF orientation is given."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def has_transparency(png: bytes) -> bool:
    """Tell whether a PNG file stores how transparent its pixels are."""
    return png[25:26] in (b"\x04", b"\x06") or png.find(b"tRNS", 0, png.find(b"IDAT")) >= 0


def decode_transparent_png(data: bytes, color_mode: ColorMode) -> np.ndarray:
    """Decode a PNG file and lay it on white, turned as its EXIF orientation says.

    OpenCV would show the colours that are stored below what is transparent: anything.

    Raises
    ------
    BadImageError
        If the image is cut off or damaged, or holds more than `MAX_PIXELS` pixels.
    """
    if PNG_END not in data:
        raise BadImageError("the image is cut off")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(TOO_LARGE)
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Image.DecompressionBombError:
        raise BadImageError(TOO_LARGE) from None
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error):
        raise BadImageError("the image is damaged") from None
    white = Image.new("RGBA", upright.size, "white")
    mode = "L" if color_mode == "grayscale" else "RGB"
    return np.asarray(Image.alpha_composite(white, upright).convert(mode))


def decode_with_opencv(data: bytes, color_mode: ColorMode, *, whole: bool) -> np.ndarray:
    """Decode an image file, turned as its EXIF orientation says.

    Parameters
    ----------
    data : bytes
        The file.
    color_mode : str
        ``grayscale`` or ``rgb``.
    whole : bool
        Whether the end of the image is there, which OpenCV does not check.

    Raises
    ------
    BadImageError
        If the image is cut off or damaged, or holds more than `MAX_PIXELS` pixels.
    """
    if not whole:
        raise BadImageError("the image is cut off")
    flag = cv2.IMREAD_GRAYSCALE if color_mode == "grayscale" else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        reason = TOO_LARGE if "pixels" in str(error) else "the image is damaged"
        raise BadImageError(reason) from None
    if pixels is None:
        raise BadImageError("the image is damaged")
    return pixels
