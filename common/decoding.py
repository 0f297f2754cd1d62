"""Decode one image: a JPEG, PNG or BMP file to grey levels of the size that is wanted."""

import os
import re
import struct
import warnings

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it at its import

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from PIL import Image  # noqa: E402

# A damaged image becomes an error with its name; OpenCV's own word to stderr has no name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

TOO_LARGE = "more than 2^27 pixels"

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"

JPEG_SCAN, JPEG_END, PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND\xaeB`\x82"

EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)  # the length is in the parentheses

ORIENTATION = 0x0112  # the tag of the EXIF standard


class BadImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


def decode(data: bytes, image_size: int) -> np.ndarray:
    """Decode one image to grey levels and resize it.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG or BMP file of any size and colour mode.
    image_size : int
        Height and width wanted, in pixels. Shrinking averages over areas, enlarging is
        bilinear; the aspect ratio is not kept, as in Keras's `flow_from_directory`.

    Returns
    -------
    ndarray of uint8, shape (image_size, image_size)
        Grey levels from 0 to 255.

    Raises
    ------
    BadImageError
        If the bytes are not such a file, are cut off or damaged, or hold more than
        `MAX_PIXELS` pixels.
    """
    if not data:
        raise BadImageError("the file is empty")
    if data.startswith(JPEG):
        image = decode_jpeg(data)
    elif data.startswith(PNG):
        image = decode_with_opencv(data, whole=PNG_END in data)
    elif data.startswith(BMP):
        image = decode_with_opencv(data, whole=True)
    else:
        raise BadImageError("not a JPEG, PNG or BMP image")
    if image.shape != (image_size, image_size):
        shrinks = min(image.shape) > image_size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (image_size, image_size), interpolation=how)
    return image


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode a JPEG file to grey levels, turned as its EXIF orientation says.

    simplejpeg reports what libjpeg warns of. OpenCV would fill in what is damaged or
    missing and say nothing.

    Raises
    ------
    BadImageError
        If the image is cut off or damaged, or holds more than `MAX_PIXELS` pixels.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS:
            raise BadImageError(TOO_LARGE)
        image = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
    except (ValueError, KeyError) as error:
        reason = str(error).removeprefix("Corrupt JPEG data: ")
        if isinstance(error, KeyError) or "subsampling" in reason:
            # simplejpeg has no name for a rare way to store colours coarsely, and no other
            # word for a file without a header. Inside a scan no end mark can stand, so that
            # a whole file has one after its last scan.
            return decode_with_opencv(data, whole=data.rfind(JPEG_END) > data.rfind(JPEG_SCAN))
        if reason == "Premature end of JPEG file":
            raise BadImageError("the image is cut off") from None
        raise BadImageError(f'the image is damaged: libjpeg says "{reason}"') from None
    orientation = orientation_of(data)
    return image if orientation == 1 else turned(image, orientation)


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG file: 1, which is upright, to 8.

    A file without one, or whose EXIF data is damaged, counts as upright.
    """
    segment = EXIF.search(data)
    if not segment or segment.start() > data.find(JPEG_SCAN):  # or of another image behind
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


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image upright whose EXIF orientation is given."""
    if orientation in (5, 6, 7, 8):
        image = image.T
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def decode_with_opencv(data: bytes, *, whole: bool) -> np.ndarray:
    """Decode an image file to grey levels, turned as its EXIF orientation says.

    Parameters
    ----------
    data : bytes
        The file.
    whole : bool
        Whether the end of the image is there, which OpenCV does not check.

    Raises
    ------
    BadImageError
        If the image is cut off or damaged, or holds more than `MAX_PIXELS` pixels.
    """
    if not whole:
        raise BadImageError("the image is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        reason = TOO_LARGE if "pixels" in str(error) else "the image is damaged"
        raise BadImageError(reason) from None
    if image is None:
        raise BadImageError("the image is damaged")
    return image
