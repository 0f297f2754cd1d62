"""Data sets with something wrong, as folder and as archive: one clear error, or a rule."""

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.archives import MAX_BYTES
from common.console import InputError
from common.datasets import open_dataset
from common.decoding import BadImageError
from common.splits import read_split
from stages import load
from tests.helpers import (
    ADMITTED,
    ENVIRONMENT,
    GREY,
    ROOT,
    TOO_LARGE,
    archive_of,
    contents,
    dvc,
    encoded,
    write_params,
)

ALL = {"train_images": None, "test_images": None}
KINDS = (pytest.param("folder", marks=pytest.mark.slow), "archive")
NAMED = "which `classes` in params.yaml names"


@pytest.fixture
def digits(workspace: Path, dataset: Path) -> Path:
    """Copy 20 training and 10 test images of each digit, to be spoiled; return where."""
    for split, count in (("train", 20), ("test", 10)):
        for folder in (dataset / split).iterdir():
            target = workspace / "digits" / split / folder.name
            target.mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, target)
    return workspace / "digits"


def run_load(folder: Path, kind: str, **changes: object) -> dict[str, float]:
    """Run `load` on a folder, or an archive of it, all images; return its metrics."""
    if kind == "archive":
        folder = archive_of(folder, folder.with_suffix(".zip"))
    write_params(folder.parent, dataset=folder.name, **ALL | changes)
    load.main()
    return json.loads(Path("metrics/load.json").read_text())


def small_archive(method: int, before: bytes) -> bytes:
    """Return an archive of four files, compressed as `method` says, with other bytes before it."""
    file = io.BytesIO()
    file.write(before)
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
            archive.writestr(name, bytes(range(64)) * 4)
    return file.getvalue()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [small_archive(method, before) for method in METHODS for before in (b"", b"X" * 50)]
PATCHES = (b"\xff" * 4, b"\x00" * 4, b"\xff" * 8, b"PK\x05\x06", b"PK\x01\x02", b"PK\x06\x06")

BAD = {
    "empty file": (b"", "the file is empty"),
    "text": (b"this is no image", "not a JPEG, PNG or BMP image"),
    "cut-off JPEG": (ADMITTED["grey JPEG"][:-40], "the image is cut off"),
    "damaged JPEG": (
        ADMITTED["grey JPEG"][:-40] + b"\xff\xd9",
        'the image is damaged: libjpeg says "premature end of data segment"',
    ),
    "cut-off PNG": (ADMITTED["grey PNG"][:-20], "the image is cut off"),
    "damaged PNG": (ADMITTED["grey PNG"].replace(b"IDAT", b"IDAT\x00"), "the image is damaged"),
    "bomb": (TOO_LARGE, "more than 2^27 pixels"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_stops_with_its_name(digits: Path, kind: str, name: str) -> None:
    content, reason = BAD[name]
    (digits / "train/3/bad.jpg").write_bytes(content)
    before = contents(digits.parent)
    with pytest.raises(InputError) as raised:
        run_load(digits, kind)
    assert str(raised.value) == (
        "1 of 301 images cannot be read:\n"
        f"  train/3/bad.jpg: {reason}\n"
        "`bad_images: skip` in params.yaml leaves them out"
    )
    after = contents(digits.parent)
    assert {n for n in after if before.get(n) != after[n]} <= {"digits.zip", "params.yaml"}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_images_are_skipped_counted_and_named(
    digits: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, (content, _) in enumerate([*BAD.values(), *BAD.values()]):
        (digits / f"test/3/bad {index}.jpg").write_bytes(content)
    metrics = run_load(digits, kind, bad_images="skip")
    assert metrics["skipped_images"] == 2 * len(BAD)
    assert metrics["test_images"] == len(read_split(Path("data/prepared/test"))) == 100
    out = capsys.readouterr().out
    assert "load: left out: 14 of 314 images cannot be read:\n  test/3/bad " in out
    assert out.count("  test/3/bad ") == 10
    with pytest.raises(InputError, match="14 of 314 images cannot be read"):
        run_load(digits, kind)
    for file in (digits / "test").rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="not one of the test images can be read"):
        run_load(digits, kind, bad_images="skip")


@pytest.mark.parametrize("kind", KINDS)
def test_odd_images_and_names_are_fine(
    digits: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    odd = {
        "a png.jpg": ADMITTED["grey PNG"],
        "with spaces.PNG": ADMITTED["16-bit PNG"],
        "Ünïcödé 数字.JpEg": ADMITTED["CMYK JPEG"],
        "new\nline.bmp": ADMITTED["grey BMP"],
        "palette.png": ADMITTED["palette PNG"],
        "alpha.png": ADMITTED["PNG with alpha"],
        "exif.jpg": encoded(GREY, "JPEG", exif=turned),
        "one pixel.png": encoded(Image.new("L", (1, 1), 9)),
        "large.png": encoded(Image.new("L", (3000, 3000), 9)),
        "deeper/still.jpg": ADMITTED["colour JPEG"],
    }
    litter = ("train/3/.DS_Store", "test/Thumbs.db", "__MACOSX/train/3/._1.jpg", ".git/train/1.jpg")
    for name, content in odd.items():
        (digits / "test/3" / name).parent.mkdir(exist_ok=True)
        (digits / "test/3" / name).write_bytes(content)
    for name in litter:
        (digits / name).parent.mkdir(parents=True, exist_ok=True)
        (digits / name).write_bytes(b"litter")
    (digits / "train/3/notes.txt").write_text("not an image, and not named as one")
    metrics = run_load(digits, kind)
    assert metrics["test_images"] == 100 + len(odd)
    names = set(read_split(Path("data/prepared/test")).names)
    assert {f"test/3/{name}" for name in odd} <= names
    out = capsys.readouterr().out
    assert "left out, not .jpg, .jpeg, .png, .bmp: 1 files, as train/3/notes.txt" in out


@pytest.mark.parametrize("kind", KINDS)
def test_test_images_that_are_in_train_are_counted(
    digits: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_load(digits, kind)["test_images_seen_in_training"] == 0
    for image in sorted((digits / "train/5").iterdir())[:3]:
        shutil.copy(image, digits / "test/5" / f"copy of {image.name}")
    assert run_load(digits, kind)["test_images_seen_in_training"] == 3
    assert "load: warning: 3 test images are also in train/" in capsys.readouterr().out


def without(name: str) -> Callable[[Path], None]:
    """Return what removes a folder of the data set."""
    return lambda digits: shutil.rmtree(digits / name)


def emptied(digits: Path) -> None:
    """Remove the images of a class, not its folder."""
    for image in (digits / "train/4").iterdir():
        image.unlink()


def one_more(digits: Path) -> None:
    """Add a folder that is no class."""
    shutil.copytree(digits / "train/1", digits / "train/10")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("train/4"), f"no images in train/4/, {NAMED}; train/ has 0, 1, 2, 3, 5"),
        (emptied, f"no images in train/4/, {NAMED}; train/ has 0, 1, 2, 3, 5"),
        (without("test/4"), f"no images in test/4/, {NAMED}; test/ has 0, 1, 2, 3, 5"),
        (without("test"), "has train/<class>/, but no images in test/<class>/; it must hold"),
        (without("train"), "has test/<class>/, but no images in train/<class>/; it must hold"),
    ],
)
def test_a_class_or_split_that_is_missing_is_named(
    digits: Path, kind: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(digits)
    with pytest.raises(InputError, match=message):
        run_load(digits, kind, classes=list("0123456789"))
    with pytest.raises(InputError, match=message.replace(NAMED, "a class of another folder")):
        run_load(digits, kind, classes=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_no_class_is_left_out_and_named(
    digits: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run_load(digits, kind)
    one_more(digits)
    assert run_load(digits, kind, classes=list("0123456789")) == expected
    assert "load: left out, not in `classes`: train/ 10" in capsys.readouterr().out


def test_links_to_files_are_followed_and_links_to_folders_refused(
    digits: Path, workspace: Path
) -> None:
    first = sorted((digits / "train/7").iterdir())[0]
    first.rename(workspace / "seven.jpg")
    first.symlink_to(workspace / "seven.jpg")
    (workspace / "linked").symlink_to(digits)
    assert run_load(workspace / "linked", "folder")["train_images"] == 100
    (workspace / "archives").mkdir()
    archive_of(digits, workspace / "digits.zip")
    (workspace / "archives/linked.zip").symlink_to(workspace / "digits.zip")
    assert run_load(workspace / "archives", "folder")["train_images"] == 100
    (workspace / "elsewhere").mkdir()
    for name in ("train/6", "train/7/deeper", "train", "beside"):
        place, target = digits / name, workspace / "elsewhere" / Path(name).name
        place.rename(target) if place.exists() else target.mkdir()
        place.symlink_to(target)
        with pytest.raises(InputError, match=f"digits/{name} is a link to a folder, which DVC"):
            run_load(digits, "folder")
        place.unlink()
        target.rename(place)
    (workspace / "archives/pipe").mkdir()
    os.mkfifo(workspace / "archives/pipe/a.zip")
    with pytest.raises(InputError, match=r"pipe/a\.zip is neither a file nor a folder"):
        open_dataset(workspace / "archives/pipe")
    (digits / "train/6").rename(workspace / "sixes")
    (digits / "train/6").symlink_to("nowhere")
    with pytest.raises(InputError, match="train/6 is a link that cannot be followed: No such file"):
        run_load(digits, "folder")


@pytest.mark.slow
def test_what_load_reads_is_what_dvc_hashes(digits: Path) -> None:
    dvc(digits.parent, "init", "--no-scm", "--quiet")
    ignore = Path(".dvcignore")
    ignore.write_text("# *.jpg\n*.tmp\n")
    (digits / "train/6/notes.tmp").touch()
    run_load(digits, "folder")
    ignore.write_text("6/\n")
    with pytest.raises(InputError, match=r"\.dvcignore leaves out 30 of the images, as digits/t"):
        run_load(digits, "folder")
    run_load(digits, "archive")


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
OPEN_ALL = """
import sys
from pathlib import Path
from common.console import InputError
from common.datasets import open_dataset
from inference.images import Images
for path in map(Path, sys.argv[1:]):
    for opened in (lambda: open_dataset(path), lambda: Images([path], ["0"])):
        try:
            print(len(opened().names))
        except InputError as error:
            print(error)
"""


def test_a_folder_that_may_not_be_read_is_an_error(digits: Path) -> None:
    words = UNPRIVILEGED if os.getuid() == 0 else ()
    if words and (not shutil.which(words[0]) or subprocess.run([*words, "true"]).returncode):
        pytest.skip("root reads every folder, and setpriv cannot take that right away here")
    deeper = digits / "train/1/deeper"
    deeper.mkdir()
    expected = []
    closed = (digits / "train/0", deeper, digits)
    for folder in closed:
        folder.chmod(0)
        done = subprocess.run(
            [*words, sys.executable, "-c", OPEN_ALL, str(digits)],
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        folder.chmod(0o755)
        expected = [f"{folder} cannot be read: Permission denied"] * 2
        found = [line.removeprefix("dataset: ") for line in done.stdout.splitlines()]
        assert found == expected, done.stderr


def test_files_that_cannot_be_read_are_named(digits: Path) -> None:
    (digits / "train/0/broken link.jpg").symlink_to("nowhere")
    os.mkfifo(digits / "train/0/pipe.jpg")
    (digits / "train/0/sparse.jpg").touch()
    os.truncate(digits / "train/0/sparse.jpg", MAX_BYTES + 1)
    expected = {
        f"  train/0/sparse.jpg: it has more than {MAX_BYTES} bytes",
        "  train/0/broken link.jpg: cannot be read: No such file or directory",
        "  train/0/pipe.jpg: not a regular file",
    }
    if Path("/proc/self/mem").exists():  # on Linux
        (digits / "train/0/input-output error.jpg").symlink_to("/proc/self/mem")
        expected.add("  train/0/input-output error.jpg: cannot be read: Input/output error")
    with pytest.raises(InputError) as raised:
        run_load(digits, "folder")
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{len(expected)} of {300 + len(expected)} images cannot be read:"
    assert set(lines[1:-1]) == expected


def test_a_name_that_is_not_utf_8_is_refused(digits: Path) -> None:
    (digits / "train/0" / os.fsdecode(b"caf\xe9.jpg")).touch()
    with pytest.raises(InputError, match=r"name that is not UTF-8: 'train/0/caf\\udce9.jpg'"):
        run_load(digits, "folder")


def spoiled(digits: Path, change: Callable[[bytearray], None]) -> None:
    """Run `load` on an archive whose bytes were changed."""
    path = archive_of(digits, digits.with_suffix(".zip"))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    write_params(digits.parent, dataset=path.name, **ALL)
    load.main()


def encrypted(data: bytearray) -> None:
    """Set the flag of encryption in every header."""
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(magic, at + 4)


def deflated64(data: bytearray) -> None:
    """Say in every header that the content is compressed with deflate64, as Windows does."""
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] = 9
            at = data.find(magic, at + 4)


def of_a_later_version(data: bytearray) -> None:
    """Say that version 9.9 is needed, behind other bytes, with which `zipfile` alone deals."""
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 6] = 99
        at = data.find(b"PK\x01\x02", at + 4)
    data[:0] = b"X" * 100


def far_away(data: bytearray) -> None:
    """Say that the first file begins at 2^63 + 5, as archives of more than 4 GB would."""
    at, end = data.find(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    (name_length,) = struct.unpack_from("<H", data, at + 28)
    struct.pack_into("<H", data, at + 30, 12)
    struct.pack_into("<I", data, at + 42, 0xFFFFFFFF)
    (size,) = struct.unpack_from("<I", data, end + 12)
    struct.pack_into("<I", data, end + 12, size + 12)
    data[at + 46 + name_length : at + 46 + name_length] = struct.pack("<HHQ", 1, 8, 2**63 + 5)


def before_its_begin(data: bytearray) -> None:
    """Say that the directory begins far behind the end, so that files begin before the begin."""
    struct.pack_into("<I", data, data.rfind(b"PK\x05\x06") + 16, 0xFFFFFFF0)


def a_link(data: bytearray) -> None:
    """Say that the first file is a symbolic link, as `zip --symlinks` does."""
    struct.pack_into("<H", data, data.find(b"PK\x01\x02") + 40, 0o120777)


def with_zero_byte(data: bytearray) -> None:
    """Change a class name to one that no file system admits."""
    data[:] = data.replace(b"train/0/", b"train/\0/")


def shortened(data: bytearray) -> None:
    """Cut the last entry of the directory in half, its end mark left as it was."""
    last, end = data.rfind(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    del data[last + 20 : end]


def flipped(data: bytearray) -> None:
    """Damage the first stored image."""
    name_length, extra_length = struct.unpack_from("<HH", data, 26)
    data[30 + name_length + extra_length + 200] ^= 0xFF


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.__delitem__(slice(-1000, None)), "is not a whole zip archive"),
        (lambda data: data.clear(), "is not a whole zip archive"),
        (shortened, "is not a whole zip archive"),
        (encrypted, "digits.zip is encrypted; it must be a plain zip archive"),
        (
            deflated64,
            "^digits.zip is compressed by the method deflate64, which Python cannot unpack; make ",
        ),
        (flipped, "1 of 300 images cannot be read:\n  train/.*: .*CRC"),
        (of_a_later_version, "is not a whole zip archive: zip file version 9.9$"),
        (far_away, "is not a whole zip archive: a file in it would begin behind its end$"),
        (before_its_begin, "is not a whole zip archive: argument out of range$"),
        (with_zero_byte, r"holds a name with a zero byte, 'train/\\x00/"),
        (a_link, "holds the link 'train/.*'; make the archive anew with what links lead to"),
    ],
)
def test_a_spoiled_archive_is_refused(
    digits: Path, change: Callable[[bytearray], None], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        spoiled(digits, change)


@given(
    st.sampled_from(ARCHIVES),
    st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from([*PATCHES, None]), st.integers(0, 7)),
        min_size=1,
        max_size=4,
    ),
)
def test_any_damage_is_one_line(archive: bytes, damage: list[tuple]) -> None:
    data = bytearray(archive)
    for place, patch, bit in damage:
        at = place % len(data)
        patch = patch or bytes([data[at] ^ 1 << bit])
        data[at : at + len(patch)] = patch
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.zip")
        path.write_bytes(data)
        try:
            dataset = open_dataset(path)
        except InputError as error:
            assert "\n" not in str(error)
            return
        for index in range(len(dataset.names)):
            with contextlib.suppress(BadImageError):
                dataset.read(index)


@pytest.mark.parametrize("comment", [b"PK\x05\x06", b"of PK\x05\x06, " * 99, b"PK\x05\x06" * 9])
def test_a_comment_may_hold_the_mark_of_an_end(digits: Path, comment: bytes) -> None:
    expected = run_load(digits, "archive")
    with zipfile.ZipFile("digits.zip", "a") as archive:
        archive.comment = comment
    load.main()
    assert json.loads(Path("metrics/load.json").read_text()) == expected


@pytest.mark.parametrize("name", ["/train/0/x.jpg", "train/0/../../../x.jpg", "../x.jpg"])
def test_names_that_leave_the_archive_are_refused(digits: Path, name: str) -> None:
    path = archive_of(digits, digits.with_suffix(".zip"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, encoded(GREY))
    write_params(digits.parent, dataset=path.name)
    with pytest.raises(InputError, match="holds a name outside of itself"):
        load.main()
    assert not list(digits.parent.parent.glob("*.jpg"))


def test_a_name_twice_in_an_archive_is_refused(digits: Path) -> None:
    path = archive_of(digits, digits.with_suffix(".zip"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], encoded(GREY))
    write_params(digits.parent, dataset=path.name)
    with pytest.raises(InputError, match="holds more than one"):
        load.main()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_archives_are_read(digits: Path, method: int) -> None:
    expected = run_load(digits, "folder") and contents(Path("data/prepared"))
    with zipfile.ZipFile("compressed.zip", "w", method) as archive:
        for file in digits.rglob("*.jpg"):
            archive.write(file, str(file.relative_to(digits)))
    write_params(digits.parent, dataset="compressed.zip", **ALL)
    load.main()
    found = contents(Path("data/prepared"))
    assert found == expected
    assert np.load("data/prepared/test/images.npy").shape == (100, 28, 28, 1)
