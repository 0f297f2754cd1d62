"""Decoding: every kind of image that is admitted, every kind of damage that is not."""

import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from common.decoding import BadImageError, decode
from tests.helpers import ADMITTED, DIGIT, GREY, TOO_LARGE, encoded
from tests.pictures import COLOURS, IN_COLOUR, ROTATED, grey_levels


@pytest.mark.parametrize("kind", ADMITTED)
def test_admitted_images_give_the_same_grey_levels(kind: str) -> None:
    image = grey_levels(ADMITTED[kind])
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - DIGIT).max() <= (4 if "JPEG" in kind else 0)


@pytest.mark.parametrize("kind", [k for k in ADMITTED if "more" not in k])
def test_an_image_cut_off_anywhere_is_refused(kind: str) -> None:
    data = ADMITTED[kind]
    for length in range(len(data)):
        with pytest.raises(BadImageError):
            decode(data[:length], 28)


def test_a_cut_off_photo_is_not_saved_by_its_thumbnail() -> None:
    photo = encoded(GREY, "JPEG", exif=b"Exif\x00\x00" + encoded(GREY, "JPEG"))
    assert photo.count(b"\xff\xd9") == 2
    decode(photo, 28)
    with pytest.raises(BadImageError, match="cut off"):
        decode(photo[:-10], 28)


DAMAGES = {
    "zeros": lambda header, scan: header + scan[: len(scan) // 3] + bytes(len(scan) * 2 // 3),
    "cut out": lambda header, scan: header + scan[: len(scan) // 4] + scan[len(scan) * 3 // 4 :],
    "cut off": lambda header, scan: header + scan[: len(scan) // 2],
    "cut off in the header": lambda header, scan: header[:-100],
}


@pytest.mark.parametrize("kind", [kind for kind in ADMITTED if kind.endswith(" JPEG")])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_jpeg_that_ends_as_it_should_is_refused(kind: str, damage: str) -> None:
    data = ADMITTED[kind]
    at = data.find(b"\xff\xda") + 10
    with pytest.raises(BadImageError, match="damaged"):
        decode(DAMAGES[damage](data[:at], data[at:-2]) + b"\xff\xd9", 28)


@pytest.mark.parametrize(("sampling", "blocks"), [(0x42, 20), (0x14, 24), (0x31, 40)])
def test_a_jpeg_of_rare_subsampling_is_read(sampling: int, blocks: int) -> None:
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "JPEG", subsampling=0))
    data[data.find(b"\xff\xc0") + 11] = sampling
    scan = data.find(b"\xff\xda")
    data[scan + 6 : scan + 11 : 2] = bytes(3)  # all three colours use the first Huffman tables,
    data[scan + 14 :] = b"\x28\xa2\x8a" * (blocks // 4)  # where this is four blocks of grey
    assert (grey_levels(bytes(data) + b"\xff\xd9") == 128).all()
    with pytest.raises(BadImageError, match="cut off"):
        decode(bytes(data), 28)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(GREY, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert (grey_levels(data) == upright).all()


def test_damaged_exif_data_and_that_of_another_image_turn_nothing() -> None:
    plain, rotated = encoded(GREY, "JPEG"), encoded(GREY, "JPEG", exif=ROTATED)
    upright, start = grey_levels(plain), rotated.find(b"Exif")
    assert (grey_levels(plain + rotated) == upright).all()
    for at in range(start + 6, start + len(ROTATED.tobytes())):
        image = grey_levels(rotated[:at] + b"\xff" + rotated[at + 1 :])
        assert any((image == either).all() for either in (upright, grey_levels(rotated)))
    no_tiff = rotated[: start + 6] + b"??" + rotated[start + 8 :]
    assert (grey_levels(no_tiff) == upright).all()


@pytest.mark.parametrize("size", [(1, 1), (28, 300), (3, 1000), (10_000, 10_000)])
def test_any_size_is_resized(size: tuple[int, int]) -> None:
    image = grey_levels(encoded(Image.new("L", size, 77)))
    assert image.shape == (28, 28)
    assert (image == 77).all()


def test_shrinking_averages() -> None:
    lines = np.zeros((56, 56), np.uint8)
    lines[:, ::2] = 200
    assert (grey_levels(encoded(Image.fromarray(lines))) == 100).all()


# A chunk before the header, which the standard has come first: others would find another size.
TEXT = b"\x00\x00\x00\x03tEXta\x00b" + zlib.crc32(b"tEXta\x00b").to_bytes(4, "big")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"an image of a five", "not a JPEG, PNG or BMP image"),
        (encoded(GREY, "GIF"), "not a JPEG, PNG or BMP image"),
        (encoded(GREY)[:-20] + bytes(20), "the image is cut off"),
        (encoded(GREY)[:40] + b"\x00" + encoded(GREY)[41:], "the image is damaged"),
        (encoded(GREY)[:8] + TEXT + encoded(GREY)[8:], "the image is damaged"),
        (TOO_LARGE, "more than 2\\^27 pixels"),
        (encoded(Image.new("L", (12_000, 12_000)), "JPEG"), "more than 2\\^27 pixels"),
    ],
)
def test_what_is_not_an_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode(data, 28)


@given(st.sampled_from([b"", *(data[:8] for data in ADMITTED.values())]), st.binary())
def test_any_bytes_are_an_image_or_refused(start: bytes, rest: bytes) -> None:
    try:
        assert grey_levels(start + rest).shape == (28, 28)
    except BadImageError as error:
        assert str(error)


@given(st.sampled_from(sorted(ADMITTED)), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_image_is_an_image_or_refused(kind: str, at: int, new: bytes) -> None:
    data = ADMITTED[kind]
    try:
        assert grey_levels(data[:at] + new + data[at + len(new) :]).shape == (28, 28)
    except BadImageError as error:
        assert str(error)


@pytest.mark.parametrize("kind", IN_COLOUR)
def test_colours_are_kept_or_become_luma_and_that_is_said(kind: str) -> None:
    allowed = 8 if "JPEG" in kind else 1
    kept, grey = (decode(IN_COLOUR[kind], 32, mode) for mode in ("rgb", "grayscale"))
    assert kept.pixels.shape == (32, 32, 3)
    assert np.abs(kept.pixels.astype(int) - COLOURS).max() <= allowed
    assert grey.pixels.shape == (32, 32, 1)
    luma = COLOURS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.pixels[:, :, 0] - luma).max() <= allowed
    assert (kept.lost_colour, grey.lost_colour) == (False, True)


@pytest.mark.parametrize("kind", ADMITTED)
def test_a_grey_image_has_three_equal_channels(kind: str) -> None:
    image = decode(ADMITTED[kind], 28, "rgb").pixels.astype(int)
    assert np.ptp(image, axis=2).max() <= (4 if "JPEG" in kind else 0)
    assert np.abs(image[:, :, 0] - DIGIT).max() <= (4 if "JPEG" in kind else 0)
    if "grey" in kind:
        assert not decode(ADMITTED[kind], 28).lost_colour


def transparent_palette() -> Image.Image:
    """Return an image whose palette has one colour that is transparent."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (4, 0, 8, 8))
    return image


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (encoded(transparent_palette(), transparency=0), (0, 0, 255), (255, 255, 255)),
        (encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 0))), (255, 255, 255), (255, 255, 255)),
        (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 51))), (204, 204, 204), (204, 204, 204)),
        (encoded(Image.new("LA", (8, 8), (0, 0))), (255, 255, 255), (255, 255, 255)),
    ],
)
def test_what_is_transparent_is_laid_on_white(
    data: bytes, left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    image = decode(data, 8, "rgb").pixels
    assert (image[:, :4] == left).all()
    assert (image[:, 4:] == right).all()
    grey = decode(data, 8).pixels[0, [0, 7], 0]
    luma = np.array([left, right]) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma).max() <= 1


@pytest.mark.parametrize("color_mode", ["grayscale", "rgb"])
def test_a_photo_decoded_at_a_reduced_size_is_like_the_whole_one(color_mode: str) -> None:
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((500, 375))
    data = encoded(photo, "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image.convert("L" if color_mode == "grayscale" else "RGB"))
    expected = cv2.resize(whole, (64, 64), interpolation=cv2.INTER_AREA).reshape(64, 64, -1)
    difference = np.abs(decode(data, 64, color_mode).pixels.astype(int) - expected)
    assert difference.mean() < 3  # of 255; taking single pixels would differ by 9
    assert difference.max() < 50
