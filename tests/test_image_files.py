"""Image files by their standards: what each stores, what is odd but whole, what is lost."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from common.decoding import BadImageError, decode
from tests.helpers import ADMITTED, GREY, encoded
from tests.pictures import IN_COLOUR, ROTATED, grey_levels

LUMA = np.array([0.299, 0.587, 0.114])
GREY_JPEG = encoded(GREY, "JPEG", quality=95)
COLOUR_JPEG = encoded(GREY.convert("RGB"), "JPEG", quality=95)
TURNED = np.asarray(GREY.rotate(-90))
EXIF = ROTATED.tobytes()[6:]  # without the word Exif, as a PNG holds it


# --- PNG: https://www.w3.org/TR/png-3/

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]
ADAM7 = (
    ((0, 8), (0, 8)),
    ((0, 8), (4, 8)),
    ((4, 8), (0, 4)),
    ((0, 4), (2, 4)),
    ((2, 4), (0, 2)),
    ((0, 2), (1, 2)),
    ((1, 2), (0, 1)),
)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(
    samples: np.ndarray,
    kind: int,
    depth: int,
    *others: bytes,
    interlaced: bool = False,
    size: tuple[int, int] | None = None,
    after: bytes = b"",
) -> bytes:
    """Return a PNG file of samples, with other chunks before and after the image."""
    rows = b""
    for y, x in ADAM7 if interlaced else (((0, 1), (0, 1)),):
        for row in samples[slice(y[0], None, y[1]), slice(x[0], None, x[1])]:
            bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            rows += b"\x00" + np.packbits(bits.astype(np.uint8)).tobytes() if row.size else b""
    width, height = size or samples.shape[1::-1]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [chunk(b"IHDR", header), *others, chunk(b"IDAT", zlib.compress(rows)), after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", ["none", "a colour of the image", "another colour"])
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_a_png_has_the_values_of_the_standard(
    kind: int, depth: int, transparent: str, interlaced: bool
) -> None:
    random = np.random.default_rng(depth)
    most = (1 << depth) - 1
    samples = random.integers(0, most + 1, (11, 11, SAMPLES[kind]))
    others, opacity = [], np.ones((11, 11, 1))
    colours = samples[..., : 1 if kind in (0, 4) else 3] / most
    if kind in (4, 6):
        opacity = samples[..., -1:] / most
    if kind == 3:
        palette = random.integers(0, 256, (most + 1, 3), dtype=np.uint8)
        others.append(chunk(b"PLTE", palette.tobytes()))
        colours = palette[samples[..., 0]] / 255
    if transparent != "none" and kind == 3:
        few = random.integers(0, 256, (most + 1) // 2, dtype=np.uint8)
        others.append(chunk(b"tRNS", few.tobytes()))
        opacity = np.append(few, np.full(most + 1 - len(few), 255))[samples] / 255
    elif transparent != "none" and kind in (0, 2):
        # The lowest bit alone tells another colour; of 16 bits all count.
        colour = samples[5, 5] ^ (transparent == "another colour")
        others.append(chunk(b"tRNS", colour.astype(">u2").tobytes()))
        opacity = (samples != colour).any(axis=2, keepdims=True)
    expected = np.broadcast_to(255 * (colours * opacity + 1 - opacity), (11, 11, 3))
    file = png(samples, kind, depth, *others, interlaced=interlaced)
    assert np.abs(decode(file, 11, "rgb").pixels - expected).max() <= 0.51
    grey = decode(file, 11).pixels[:, :, 0]
    assert np.abs(grey - expected @ LUMA).max() <= 1.01  # libpng cuts the fraction off


def test_colour_profiles_and_animation_change_nothing() -> None:
    red = np.full((4, 4, 3), (200, 10, 10))
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))
    for other in (gamma, chunk(b"sRGB", b"\x00"), chunk(b"acTL", struct.pack(">II", 2, 0))):
        assert (decode(png(red, 2, 8, other), 4).pixels == decode(png(red, 2, 8), 4).pixels).all()


@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_a_png_whose_rows_are_not_all_there_is_refused(kind: int, depth: int) -> None:
    samples = np.ones((20, 20, SAMPLES[kind]), int)
    palette = [chunk(b"PLTE", bytes(6))] if kind == 3 else []
    with pytest.raises(BadImageError, match="the image is cut off"):
        decode(png(samples, kind, depth, *palette, size=(20, 21)), 8)
    decode(png(samples, kind, depth, *palette, size=(20, 19)), 8)  # a row too many


# --- JPEG: ITU-T T.81, and the warnings of libjpeg


def changed(data: bytes, at: bytes, offset: int, new: bytes) -> bytes:
    """Return a file with other bytes at a place that is counted from the first of a mark."""
    start = data.index(at) + offset
    return data[:start] + new + data[start + len(new) :]


def put_before(data: bytes, mark: bytes, new: bytes) -> bytes:
    """Return a file with more bytes before the last of a mark."""
    return new.join((data[: data.rindex(mark)], data[data.rindex(mark) :]))


TABLES, FRAME, SCAN, END = b"\xff\xdb", b"\xff\xc0", b"\xff\xda", b"\xff\xd9"
ICC = b"\xff\xe2\x00\x12ICC_PROFILE\x00\x05\x02ab"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x05"
OLD_JFIF = changed(GREY_JPEG, b"JFIF", 5, b"\x00\x00")
SURPLUS = put_before(GREY_JPEG, END, b"bytes of a camera" * 20)
ODD_BUT_WHOLE = {
    "JFIF 0.00": OLD_JFIF,
    "JFIF 2.01": changed(GREY_JPEG, b"JFIF", 5, b"\x02\x01"),
    "bytes before the end mark": SURPLUS,
    "zeros before the end mark": put_before(GREY_JPEG, END, bytes(300)),
    "both": changed(SURPLUS, b"JFIF", 5, b"\x00\x00"),
    "bytes before a table": put_before(GREY_JPEG, TABLES, b"stray \xff\x00 \xff\xd0"),
    "fill bytes": put_before(GREY_JPEG, TABLES, b"\xff\xff"),
    "broken colour profile": put_before(GREY_JPEG, TABLES, ICC),
    "parameters of a progressive scan": changed(GREY_JPEG, SCAN, 7, b"\x01\x05\x11"),
    "unknown Adobe transform": changed(put_before(COLOUR_JPEG, TABLES, ADOBE), b"JFIF", 0, b"JFXX"),
}


@pytest.mark.parametrize("name", ODD_BUT_WHOLE)
@pytest.mark.parametrize("color_mode", ["grayscale", "rgb"])
def test_a_whole_jpeg_that_libjpeg_warns_of_is_read(name: str, color_mode: str) -> None:
    with Image.open(io.BytesIO(ODD_BUT_WHOLE[name])) as image:
        expected = np.asarray(image.convert("L" if color_mode == "grayscale" else "RGB"))
    image = decode(ODD_BUT_WHOLE[name], 28, color_mode).pixels
    assert (image == expected.reshape(image.shape)).all()


RESTARTS = encoded(GREY, "JPEG", restart_marker_blocks=1)
PROGRESSIVE = encoded(GREY, "JPEG", progressive=True)
DAMAGED = {
    "Premature end": (OLD_JFIF[:-30], "the image is cut off"),
    "no end mark": (OLD_JFIF[:-2], "the image is cut off"),
    "HIT_MARKER": (OLD_JFIF[:-30] + END, 'libjpeg says "premature end of data segment"'),
    "HUFF_BAD_CODE": (
        changed(OLD_JFIF, SCAN, 20, b"\xff\x00" * 9),
        'libjpeg says "bad Huffman code"',
    ),
    "MUST_RESYNC": (
        changed(RESTARTS, b"\xff\xd1", 1, b"\xd5"),
        'libjpeg says "found marker 0xd5 instead of RST1"',
    ),
    "EXTRANEOUS_DATA before a restart": (
        put_before(RESTARTS, b"\xff\xd1", b"surplus bytes"),
        'libjpeg says ".* extraneous bytes before marker 0xd1"',
    ),
    "BOGUS_PROGRESSION": (
        PROGRESSIVE[: PROGRESSIVE.index(SCAN)]
        + PROGRESSIVE[PROGRESSIVE.index(b"\xff\xc4", PROGRESSIVE.index(SCAN)) :],
        "libjpeg says",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_jpeg_that_lost_pixels_is_refused(name: str) -> None:
    data, reason = DAMAGED[name]
    with pytest.raises(BadImageError, match=reason):
        decode(data, 28)


LOSSLESS = changed(GREY_JPEG, FRAME, 1, b"\xc3")  # what says so, and is not
ARITHMETIC = bytes.fromhex(  # 16 x 16 pixels, by libjpeg-turbo 2.1: 94 above, 157 below
    "ffd8ffe000104a46494600010100000100010000ffdb00430001010101010101010101010101010101010101"
    "0101010101010101010101010101010101010101010101010101010101010101010101010101010101010101"
    "01ffc9000b080010001001011100ffcc000600101005ffda0008010100003f00ff00ec7bbfb080ffd9"
)


@pytest.mark.parametrize("color_mode", ["grayscale", "rgb"])
@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (LOSSLESS, "is lossless"),
        (put_before(LOSSLESS, b"\xff\xc3", b"stray\xff\xff"), "is lossless"),
        (changed(GREY_JPEG, FRAME, 1, b"\xcb"), "is lossless"),
        (changed(GREY_JPEG, FRAME, 1, b"\xc5"), "is hierarchical"),
        (changed(GREY_JPEG, FRAME, 1, b"\xf7"), "is a JPEG-LS"),
        (changed(GREY_JPEG, FRAME, 4, b"\x0c"), "has 12 bits a sample"),
        (changed(GREY_JPEG, FRAME, 9, b"\x02"), "has 2 channels"),
        (changed(GREY_JPEG, FRAME, 5, b"\x00\x00"), "tells its height behind its rows"),
    ],
)
def test_a_kind_of_jpeg_that_is_not_read_is_named(
    data: bytes, kind: str, size: int, color_mode: str
) -> None:
    with pytest.raises(BadImageError, match=f"^the JPEG {kind}, which is not read; save it as"):
        decode(data, size, color_mode)


def test_an_arithmetic_jpeg_is_read() -> None:
    image = decode(ARITHMETIC, 16).pixels
    assert (image[:8] == 94).all()
    assert (image[8:] == 157).all()


# --- EXIF, and sizes, colours and silence


def segment(marker: int, content: bytes) -> bytes:
    """Return a segment of a JPEG file."""
    return struct.pack(">HH", marker, len(content) + 2) + content


@pytest.mark.parametrize("before", ["JPEG", "an upright EXIF of another name", "XMP", "fill bytes"])
def test_exif_is_found_behind_any_segment(before: str) -> None:
    others = {
        "JPEG": segment(0xFFE2, GREY_JPEG),
        "an upright EXIF of another name": segment(0xFFE1, b"exif\x00\x00" + EXIF),
        "XMP": segment(0xFFE1, b"http://ns.adobe.com/xap/1.0/\x00<x>\xff\xda</x>"),
        "fill bytes": b"\xff" * 3,
    }
    exif = segment(0xFFE1, b"Exif\x00\x00" + EXIF)
    data = put_before(GREY_JPEG, TABLES, others[before] + exif)
    with Image.open(io.BytesIO(GREY_JPEG)) as image:
        assert (grey_levels(data) == np.asarray(image.rotate(-90))).all()


@pytest.mark.parametrize("image", [GREY, GREY.convert("LA")], ids=["opaque", "transparent"])
def test_the_exif_chunk_alone_turns_a_png(image: Image.Image) -> None:
    plain = encoded(image)
    exif = chunk(b"eXIf", EXIF)
    at = plain.index(b"IDAT") - 4
    assert (grey_levels(plain[:at] + exif + plain[at:]) == grey_levels(plain).T[:, ::-1]).all()
    assert (grey_levels(plain[:-12] + exif + plain[-12:]) == grey_levels(plain).T[:, ::-1]).all()
    text = PngImagePlugin.PngInfo()  # as ImageMagick writes it
    profile = (b"Exif\x00\x00" + EXIF).hex()
    text.add_text("Raw profile type exif", f"\nexif\n{len(profile) // 2:8}\n{profile}\n", zip=True)
    assert (grey_levels(encoded(image, pnginfo=text)) == grey_levels(plain)).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [0, 6, 9, 1536])
def test_exif_has_two_orders_of_bytes_and_eight_orientations(order: str, value: int) -> None:
    start = b"II*\x00" if order == "<" else b"MM\x00*"
    exif = start + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    image = grey_levels(png(np.asarray(GREY)[..., None], 0, 8, chunk(b"eXIf", exif)))
    assert (image == (TURNED if value == 6 else np.asarray(GREY))).all()


HEADERS_OF_BMP = struct.Struct("<2sIHHIIiiHHIIIIII")


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (png(np.zeros((1, 1, 1), int), 0, 8, size=(2**20 + 1, 1)), "1,000,000"),
        (png(np.zeros((1, 1, 1), int), 0, 8, size=(1, 2**20 + 1)), "1,000,000"),
        (
            HEADERS_OF_BMP.pack(b"BM", 0, 0, 0, 54, 40, 1, -(2**20) - 1, 1, 8, 0, 0, 0, 0, 0, 0),
            "1,000,000",
        ),
        (changed(GREY_JPEG, FRAME, 5, struct.pack(">HH", 8, 65_501)), "65,500"),
    ],
    ids=["wide PNG", "high PNG", "high BMP", "wide JPEG"],
)
def test_a_side_that_is_too_long_is_named(data: bytes, limit: str) -> None:
    with pytest.raises(BadImageError, match=f"^more than {limit} pixels high or wide$"):
        decode(data, 28)


def of_palette(*colours: int) -> Image.Image:
    """Return an image that shows the first colour of a palette."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    ("data", "is_coloured"),
    [
        (encoded(of_palette(9, 9, 9, 77, 77, 77)), False),
        (encoded(of_palette(9, 9, 9, 77, 77, 78)), True),
        (encoded(of_palette(9, 9, 9, 77, 77, 78), transparency=0), True),
        (encoded(of_palette(9, 9, 9, 77, 77, 77), "BMP"), False),
        (encoded(of_palette(9, 9, 9, 77, 77, 78), "BMP"), True),
        (encoded(Image.new("1", (8, 8)), "BMP"), False),
        (encoded(Image.new("RGB", (8, 8)), "BMP"), True),
        (encoded(Image.new("RGB", (8, 8))), True),
        (COLOUR_JPEG, True),
    ],
    ids=range(9),
)
def test_a_file_is_in_colour_by_its_channels_or_its_palette(data: bytes, is_coloured: bool) -> None:
    assert decode(data, 8).lost_colour == is_coloured
    assert not decode(data, 8, "rgb").lost_colour


def test_no_library_writes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.full((8, 8, 3), 9)
    whole = png(pixels, 2, 8)
    files = [
        *ADMITTED.values(),
        *IN_COLOUR.values(),
        *ODD_BUT_WHOLE.values(),
        *(data for data, _ in DAMAGED.values()),
        png(pixels, 2, 8, size=(8, 9)),
        png(pixels, 2, 8, size=(8, 7)),
        png(pixels, 2, 8, chunk(b"tEXt", b"a\x00b")[:-1] + b"x"),
        png(pixels, 2, 8, chunk(b"iCCP", b"ICC\x00\x00" + zlib.compress(b"no profile"))),
        png(pixels, 2, 8, chunk(b"tRNS", bytes(5))),
        png(pixels, 2, 8, after=chunk(b"tEXt", b"")),
        png(pixels[..., :1], 3, 8, chunk(b"PLTE", bytes(6)), chunk(b"tRNS", bytes(9))),
        whole[:43] + b"\xff\xff" + whole[45:],
        whole[:33] + chunk(b"IDAT", zlib.compress(b"\x09" * 200)) + whole[-12:],
        encoded(GREY, "BMP")[:-100],
    ]
    for data in files:
        for color_mode in ("grayscale", "rgb"):
            try:
                decode(data, 8, color_mode)
            except BadImageError as error:
                assert str(error)
    assert capfd.readouterr() == ("", "")
