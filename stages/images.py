"""Find and decode labelled images in a folder or a zip archive.

A data set is a tree ``{train,test}/<class>/<image>``, directly below the folder or archive
or inside the one folder that it holds. What counts as an image, and how it is read:

- files that end in .jpg, .jpeg, .png or .bmp, in any case, at any depth below the class;
  what the content is decides its own first bytes, not that ending;
- hidden files, Thumbs.db, desktop.ini and __MACOSX are the litter of file managers: ignored;
- symbolic links are followed in a folder;
- grey level is the luma of a colour image; transparency is dropped, 16 bits become 8, and a
  photo is turned the way its EXIF orientation says.
"""

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it at its import

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from stages.console import InputError  # noqa: E402

SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
LITTER = ("thumbs.db", "desktop.ini", "__macosx")
JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
JPEG_SCAN, JPEG_END, PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND\xaeB`\x82"

# A damaged image becomes an error with its name; OpenCV's own word to stderr has no name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class BadImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


class Dataset(Protocol):
    """Labelled images.

    Attributes
    ----------
    names : list of str
        ``split/class/...`` for each file below a class, sorted; litter left out.
    """

    names: list[str]

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; raise `BadImageError` where that fails."""
        ...


class FolderDataset:
    """A data set in a plain folder; see `Dataset`."""

    def __init__(self, path: Path) -> None:
        self.root = path
        if not any((path / split).is_dir() for split in SPLITS):
            inner = [entry for entry in path.iterdir() if not litter(entry.name)]
            if len(inner) == 1 and inner[0].is_dir():
                self.root = inner[0]
        self.names = sorted(
            f"{split}/{name}" for split in SPLITS for name in walk(self.root / split)
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        path = self.root / name
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
                raise BadImageError("not a regular file")
            return path.read_bytes()
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror}") from None


class ArchiveDataset:
    """A data set in a zip archive, read where it lies; see `Dataset`."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"{path} is not a whole zip archive: {error}") from None
        if any(member.flag_bits & 1 for member in self.archive.infolist()):
            raise InputError(f"{path} is encrypted; it must be a plain zip archive")
        names = [name for name in self.archive.namelist() if not name.endswith("/")]
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{path} holds a name outside of itself, {name!r}: refused")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"{path} holds more than one {twice[0]!r}: make the names unique")
        names = [name for name in names if not any(map(litter, name.split("/")))]
        tops = {name.split("/")[0] for name in names}
        self.prefix = ""
        if len(tops) == 1 and not tops & set(SPLITS):
            self.prefix = f"{tops.pop()}/"
        names = [name.removeprefix(self.prefix) for name in names]
        self.names = sorted(name for name in names if name.split("/")[0] in SPLITS)

    def read(self, name: str) -> bytes:
        """Return the bytes of one member; its checksum is checked."""
        try:
            return self.archive.read(self.prefix + name)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise BadImageError(f"cannot be read: {error}") from None


def open_dataset(path: Path) -> Dataset:
    """Open a data set.

    Parameters
    ----------
    path : Path
        A folder, or a zip archive.

    Raises
    ------
    InputError
        If there is no such path, or it is neither, or it has no `train` or `test`.
    """
    if path.is_dir():
        dataset: Dataset = FolderDataset(path)
    elif path.is_file():
        dataset = ArchiveDataset(path)
    else:
        raise InputError(
            f"dataset: {path} does not exist; it must be a folder or zip archive of "
            "train/<class>/ and test/<class>/"
        )
    found = {name.split("/")[0] for name in dataset.names}
    for split in SPLITS:
        if split not in found:
            raise InputError(
                f"dataset: {path} has no images in {split}/<class>/; it must hold "
                "train/<class>/ and test/<class>/, or one folder that does"
            )
    return dataset


def walk(folder: Path) -> list[str]:
    """Return the files below a folder's folders, relative to it, links followed."""
    names = []
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            raise InputError(f"{parent} is a link to a folder that is in the data set already")
        seen.add(real)
        folders[:] = [name for name in folders if not litter(name)]
        below = PurePosixPath(os.path.relpath(parent, folder))
        names += [str(below / name) for name in files if not litter(name)]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder} holds a name that is not UTF-8: {name!r}") from None
    return [name for name in names if "/" in name]


def litter(name: str) -> bool:
    """Tell whether a file manager left this name behind."""
    return name.startswith(".") or name.lower() in LITTER


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
        # OpenCV fills up what is missing and says nothing. Inside a scan no end mark can
        # stand, so that a whole file has one after its last scan.
        whole = data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
    elif data.startswith(PNG):
        whole = PNG_END in data
    elif data.startswith(BMP):
        whole = True
    else:
        raise BadImageError("not a JPEG, PNG or BMP image")
    if not whole:
        raise BadImageError("the image is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        reason = "more than 2^27 pixels" if "pixels" in str(error) else "the image is damaged"
        raise BadImageError(reason) from None
    if image is None:
        raise BadImageError("the image is damaged")
    if image.shape != (image_size, image_size):
        shrinks = min(image.shape) > image_size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (image_size, image_size), interpolation=how)
    return image
