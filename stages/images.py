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

import functools
import mmap
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it at its import

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from stages.console import InputError  # noqa: E402

SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
LITTER = re.compile(r"(^|/)(\.|(thumbs\.db|desktop\.ini|__macosx)(/|$))", re.IGNORECASE)
MAX_BYTES = 2**29  # what a member of an archive may unpack to
JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
JPEG_SCAN, JPEG_END, PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND\xaeB`\x82"

# A damaged image becomes an error with its name; OpenCV's own word to stderr has no name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,
)


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
            inner = [entry for entry in path.iterdir() if not LITTER.search(entry.name)]
            if len(inner) == 1 and inner[0].is_dir():
                self.root = inner[0]
        self.names = sorted(
            f"{split}/{name}" for split in SPLITS for name in walk(self.root / split)
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        try:
            # Not to block: a pipe would never end.
            file = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK)
            try:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    raise BadImageError("not a regular file")
                return os.read(file, status.st_size + 1)
            finally:
                os.close(file)
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror}") from None


class Map(mmap.mmap):
    """A memory map that `zipfile` takes for a file; a forked process has its own position."""

    def seekable(self) -> bool:
        """Tell that it is; before Python 3.13 a memory map does not say."""
        return True


class Member(NamedTuple):
    """What the directory of a zip archive says of one member, in `zipfile.ZipInfo`'s terms."""

    filename: str
    flag_bits: int
    compress_type: int
    CRC: int
    file_size: int
    header_offset: int


# APPNOTE.TXT, 4.3.12: the fields of `Member` but the name, and the lengths of name, extra
# field and comment, which follow.
ENTRY = struct.Struct("<4s4xHH4xIIIHHH8xI")


def members_of(archive: Map) -> list[Member] | list[zipfile.ZipInfo]:
    """Return the members of a zip archive in the order of its directory.

    `zipfile` takes five microseconds over each, longer than the rest of `load` does over a
    small image; it is left to read what is not of the usual form.

    Raises
    ------
    zipfile.BadZipFile
        If it is no zip archive, or is cut off.
    """
    members: list[Member] = []
    try:
        size, at = struct.unpack_from("<II", archive, max(archive.rfind(b"PK\x05\x06"), 0) + 12)
        directory, at = archive[at : at + size], 0
        while at < size:
            magic, flags, method, crc, packed, unpacked, *lengths, offset = ENTRY.unpack_from(
                directory, at
            )
            if magic != b"PK\x01\x02" or 0xFFFFFFFF in (packed, unpacked, offset):
                return zipfile.ZipFile(archive).infolist()
            name = directory[at + 46 : at + 46 + lengths[0]]
            name = name.decode("utf-8" if flags & 0x800 else "cp437")
            members.append(Member(name, flags, method, crc, unpacked, offset))
            at += 46 + sum(lengths)
    except (struct.error, UnicodeDecodeError):
        return zipfile.ZipFile(archive).infolist()
    return members or zipfile.ZipFile(archive).infolist()


class ArchiveDataset:
    """A data set in a zip archive, read where it lies; see `Dataset`."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self.bytes = Map(file.fileno(), 0, access=mmap.ACCESS_READ)
            found = members_of(self.bytes)
        except (zipfile.BadZipFile, ValueError) as error:  # ValueError: an empty file
            raise InputError(f"{path} is not a whole zip archive: {error}") from None
        members = {}
        for member in found:
            name = member.filename
            if member.flag_bits & 1:
                raise InputError(f"{path} is encrypted; it must be a plain zip archive")
            if name.startswith("/") or (".." in name and ".." in name.split("/")):
                raise InputError(f"{path} holds a name outside of itself, {name!r}: refused")
            if name in members:
                raise InputError(f"{path} holds more than one {name!r}: make the names unique")
            members[name] = member
        names = [name for name in members if name[-1:] != "/" and not LITTER.search(name)]
        tops = {name.split("/", 1)[0] for name in names}
        self.prefix = f"{tops.pop()}/" if len(tops) == 1 and not tops & set(SPLITS) else ""
        names = [name.removeprefix(self.prefix) for name in names]
        self.names = sorted(name for name in names if name.startswith(("train/", "test/")))
        self.members = members

    @functools.cached_property
    def archive(self) -> zipfile.ZipFile:
        """The archive as `zipfile` reads it, for members that are compressed."""
        return zipfile.ZipFile(self.bytes)

    def read(self, name: str) -> bytes:
        """Return the bytes of one member; its checksum is checked."""
        member = self.members[self.prefix + name]
        if member.file_size > MAX_BYTES:
            raise BadImageError(f"unpacks to more than {MAX_BYTES} bytes")
        try:
            if member.compress_type != zipfile.ZIP_STORED:
                return self.archive.read(self.prefix + name)
            lengths = struct.unpack_from("<HH", self.bytes, member.header_offset + 26)
            start = member.header_offset + 30 + sum(lengths)  # APPNOTE.TXT, 4.3.7
            data = self.bytes[start : start + member.file_size]
            if zlib.crc32(data) != member.CRC:
                raise zipfile.BadZipFile("its CRC-32 is not the one in the archive")
            return data
        except READ_ERRORS as error:
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
        folders[:] = [name for name in folders if not LITTER.search(name)]
        below = PurePosixPath(os.path.relpath(parent, folder))
        names += [str(below / name) for name in files if not LITTER.search(name)]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder} holds a name that is not UTF-8: {name!r}") from None
    return [name for name in names if "/" in name]


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
