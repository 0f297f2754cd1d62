"""Pictures that the tests of decoding share."""

import numpy as np
from PIL import Image

from common.decoding import decode
from tests.helpers import encoded

ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # the camera was held upright: turn by a quarter, clockwise


def grey_levels(data: bytes) -> np.ndarray:
    """Decode an image to 28 x 28 grey levels, without the axis of the one channel."""
    return decode(data, 28).pixels[:, :, 0]


COLOURS = np.zeros((32, 32, 3), np.uint8)
COLOURS[:16, :, 0] = 200  # red above
COLOURS[16:, :16, 1] = 150  # green and blue below
COLOURS[16:, 16:, 2] = 250
PICTURE = Image.fromarray(COLOURS)
IN_COLOUR = {
    "JPEG": encoded(PICTURE, "JPEG", quality=100, subsampling=0),
    "CMYK JPEG": encoded(PICTURE.convert("CMYK"), "JPEG", quality=100),
    "PNG": encoded(PICTURE),
    "palette PNG": encoded(PICTURE.quantize(4)),
    "PNG with alpha": encoded(PICTURE.convert("RGBA")),
    "BMP": encoded(PICTURE, "BMP"),
    "turned JPEG": encoded(PICTURE.rotate(90), "JPEG", quality=100, subsampling=0, exif=ROTATED),
}
