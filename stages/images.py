"""Find and decode labelled images in a folder or a zip archive.

A data set is a tree ``{train,test}/<class>/<image>``, directly below the folder or archive
or inside the one folder that it holds. A folder of zip archives is one data set, too: the
trees of all of them. What counts as an image, and how it is read:

- files that end in .jpg, .jpeg, .png or .bmp, in any case, at any depth below the class;
  what the content is decides its own first bytes, not that ending;
- hidden files, Thumbs.db, desktop.ini and __MACOSX are the litter of file managers: ignored;
- symbolic links are followed in a folder;
- names are in Unicode's composed form (NFC) everywhere, as those in `classes` are: "é" is one
  character, though macOS may store "e" and an accent. A name in a zip archive is UTF-8 where
  it can be, whether the archive says so or not, and code page 437 otherwise;
- grey level is the luma of a colour image; transparency is dropped, 16 bits become 8, and a
  photo is turned the way its EXIF orientation says;
- an image is whole if its decoder reads all of it without complaint. What follows the end of
  the image in its file, as the video of a motion photo does, is not looked at.
"""

import contextlib
import functools
import io
import itertools
import os
import re
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

MAX_PIXELS = 2**27  # what a picture may decode to, lest a small file fill the memory
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it at its import

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from PIL import Image  # noqa: E402

from stages.console import InputError  # noqa: E402

SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
LITTER = re.compile(r"(^|/)(\.|(thumbs\.db|desktop\.ini|__macosx)(/|$))", re.IGNORECASE)
MAX_BYTES = 2**29  # what a member of an archive may unpack to
TOO_LARGE = "more than 2^27 pixels"
JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
JPEG_SCAN, JPEG_END, PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND\xaeB`\x82"
EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)  # the length is in the parentheses
ORIENTATION = 0x0112  # the tag of the EXIF standard

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

    def read(self, number: int) -> bytes:
        """Return the bytes of ``names[number]``; raise `BadImageError` where that fails."""
        ...


class FolderDataset:
    """A data set in a plain folder; see `Dataset`."""

    def __init__(self, path: Path) -> None:
        self.root = path
        if not any((path / split).is_dir() for split in SPLITS):
            inner = [entry for entry in path.iterdir() if not LITTER.search(entry.name)]
            if len(inner) == 1 and inner[0].is_dir():
                self.root = inner[0]
        found = [f"{split}/{name}" for split in SPLITS for name in walk(self.root / split)]
        self.files = sorted(found, key=composed)  # as the file system spells them
        self.names = [composed(name) for name in self.files]
        for number in repeated(self.names):
            raise InputError(
                f"{path} holds more than one {self.names[number]!r}: {self.files[number]!a} and "
                f"{self.files[number + 1]!a} differ only in how accents are stored: make the names "
                "unique"
            )

    def read(self, number: int) -> bytes:
        """Return the bytes of one file."""
        try:
            # Not to block: a pipe would never end.
            file = os.open(f"{self.root}/{self.files[number]}", os.O_RDONLY | os.O_NONBLOCK)
            try:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    raise BadImageError("not a regular file")
                return os.read(file, status.st_size + 1)
            finally:
                os.close(file)
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror}") from None


class Member(NamedTuple):
    """What the directory of a zip archive says of one member, in `zipfile.ZipInfo`'s terms."""

    filename: str
    flag_bits: int
    compress_type: int
    CRC: int
    compress_size: int
    file_size: int
    header_offset: int


UTF_8 = 0x800  # the flag of a member whose name is UTF-8

# APPNOTE.TXT, 4.3.12: the fields of `Member` but the name, and the lengths of name, extra
# field and comment, which follow.
ENTRY = struct.Struct("<4s4xHH4xIIIHHH8xI")


def members_of(path: Path) -> Iterator[Member]:
    """Yield the members of a zip archive in the order of its directory, which is not kept.

    `zipfile` takes five microseconds and 0.7 kB over each; it is left to read what is not of
    the usual form: archives of more than 4 GB.

    Raises
    ------
    zipfile.BadZipFile
        If it is no zip archive, or is cut off.
    """
    count = 0
    with path.open("rb") as file, contextlib.suppress(struct.error):
        file.seek(max(0, file.seek(0, os.SEEK_END) - 22 - 0xFFFF))
        tail = file.read()
        left, at = struct.unpack_from("<II", tail, end_record(tail) + 12)
        file.seek(at)
        while left > 0:
            magic, *fields, n_name, n_extra, n_comment, offset = ENTRY.unpack(file.read(46))
            if magic != b"PK\x01\x02" or 0xFFFFFFFF in (*fields[3:], offset):
                break
            name = file.read(n_name)
            file.read(n_extra + n_comment)
            yield Member(decoded_name(name), *fields, offset)
            count += 1
            left -= 46 + n_name + n_extra + n_comment
        if count and not left:
            return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[count:]:
            name = info.orig_filename.encode("utf-8" if info.flag_bits & UTF_8 else "cp437")
            fields = (getattr(info, field) for field in Member._fields[1:])
            yield Member(decoded_name(name), *fields)


def end_record(tail: bytes) -> int:
    """Return where the record that ends an archive is, in the last bytes of the archive.

    A comment follows the record and may hold the record's own mark. The record is the one
    whose comment reaches to the end.

    Raises
    ------
    struct.error
        If there is none.
    """
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        if at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            return at
    raise struct.error


def decoded_name(name: bytes) -> str:
    """Return the name of an archive's member as text, composed.

    The archives of macOS hold UTF-8 without the flag that says so.
    """
    try:
        return composed(name.decode())
    except UnicodeDecodeError:
        return composed(name.decode("cp437"))


def composed(name: str) -> str:
    """Return a name in the form in which names are compared; see the top of this file."""
    return unicodedata.normalize("NFC", name)


def repeated(names: list[str]) -> Iterator[int]:
    """Yield the positions in sorted names of those that the next name equals."""
    return (number for number, (a, b) in enumerate(itertools.pairwise(names)) if a == b)


# Where a member is: which of the archives, and the fields of `Member` from the third on.
PLACE = np.dtype("u4,u2,u4,u8,u8,u8")
HEADER = 512  # bytes; what stands before the content of a member is shorter, as a rule


class ArchiveDataset:
    """A data set in one or several zip archives, read where they lie; see `Dataset`."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        names: list[str] = []
        places = []
        for index, path in enumerate(paths):
            found, where = contents_of(path, index)
            if len(paths) > 1 and not found:
                raise InputError(
                    f"{path} has no images in train/<class>/ or test/<class>/, as each archive in "
                    f"{path.parent} must"
                )
            names += found
            places.append(where)
        order = sorted(range(len(names)), key=names.__getitem__)
        self.names = [names[number] for number in order]
        self.places = np.concatenate(places)[order]
        for number in repeated(self.names):
            first, second = (paths[place[0]] for place in self.places[number : number + 2])
            where = f"{first} holds" if first == second else f"{first} and {second} hold"
            name = self.names[number]
            raise InputError(f"{where} more than one {name!r}: make the names unique")

    @functools.cached_property
    def files(self) -> list[int]:
        """The archives, opened by each process that reads from them."""
        return [os.open(path, os.O_RDONLY) for path in self.paths]

    def read(self, number: int) -> bytes:
        """Return the bytes of one member; its checksum is checked."""
        archive, method, crc, packed, size, offset = self.places[number].item()
        if max(packed, size) > MAX_BYTES:
            raise BadImageError(f"unpacks to more than {MAX_BYTES} bytes")
        try:
            data = os.pread(self.files[archive], HEADER + packed, offset)
            start = 30 + sum(struct.unpack_from("<HH", data, 26))  # APPNOTE.TXT, 4.3.7
            if start > HEADER:
                data, start = os.pread(self.files[archive], packed, offset + start), 0
            data = data[start : start + packed]
            if method != zipfile.ZIP_STORED:
                return unpacked(data, method, crc, size)
            if zlib.crc32(data) != crc:
                raise zipfile.BadZipFile("its CRC-32 is not the one in the archive")
            return data
        except READ_ERRORS as error:
            raise BadImageError(f"cannot be read: {error}") from None


def contents_of(path: Path, index: int) -> tuple[list[str], np.ndarray]:
    """Return the names of an archive's images, and where they are.

    Parameters
    ----------
    path : Path
        The archive.
    index : int
        Which of the archives it is.

    Returns
    -------
    (list of str, ndarray of PLACE)
        Names below the root of the data set, in the order of the directory.

    Raises
    ------
    InputError
        If it is not a whole archive, is encrypted, is compressed in a way that `zipfile`
        does not know, or holds a name outside of itself.
    """
    names, places, tops = [], bytearray(), set()
    try:
        for name, flags, *place in members_of(path):
            if flags & 1:
                raise InputError(f"{path} is encrypted; it must be a plain zip archive")
            if name.startswith("/") or (".." in name and ".." in name.split("/")):
                raise InputError(f"{path} holds a name outside of itself, {name!r}: refused")
            if name[-1:] != "/" and not LITTER.search(name):
                tops.add(name.partition("/")[0])
                names.append(name)
                places += struct.pack("<IHIQQQ", index, *place)
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path} is not a whole zip archive: {error}") from None
    prefix = f"{tops.pop()}/" if len(tops) == 1 and not tops & set(SPLITS) else ""
    for number, name in enumerate(names):
        names[number] = name.removeprefix(prefix)
    below = [name.startswith(("train/", "test/")) and name.count("/") > 1 for name in names]
    found = np.frombuffer(places, PLACE)[below]
    for method in set(found["f1"].tolist()):
        try:
            unpacked(b"", method, 0, 0)
        except RuntimeError:  # or NotImplementedError, which is one
            name = zipfile.compressor_names.get(method, f"number {method}")
            raise InputError(
                f"{path} is compressed by the method {name}, which Python cannot unpack; make the "
                "archive anew with deflate, the usual method, or without compression"
            ) from None
    return list(itertools.compress(names, below)), found


def unpacked(data: bytes, method: int, crc: int, size: int) -> bytes:
    """Return the content of a compressed member, its checksum checked by `zipfile`."""
    member = zipfile.ZipInfo()
    member.compress_type, member.CRC = method, crc
    member.compress_size, member.file_size = len(data), size
    return zipfile.ZipExtFile(io.BytesIO(data), "r", member).read()


def open_dataset(path: Path) -> Dataset:
    """Open a data set.

    Parameters
    ----------
    path : Path
        A folder of images, a zip archive, or a folder of zip archives.

    Raises
    ------
    InputError
        If there is no such path, or it is none of them, or it has no `train` or `test`.
    """
    inside = sorted(entry for entry in path.glob("*") if not LITTER.search(entry.name))
    archives = [entry for entry in inside if entry.suffix.lower() == ".zip" and entry.is_file()]
    folders = [entry for entry in inside if entry.is_dir()]
    if archives and folders:
        raise InputError(
            f"dataset: {path} holds the zip archive {archives[0].name} beside the folder "
            f"{folders[0].name}; it must hold archives alone, or none"
        )
    if archives:
        dataset: Dataset = ArchiveDataset(archives)
    elif path.is_dir():
        dataset = FolderDataset(path)
    elif path.is_file():
        dataset = ArchiveDataset([path])
    else:
        raise InputError(
            f"dataset: {path} does not exist; it must be a folder or zip archive of "
            "train/<class>/ and test/<class>/, or a folder of such archives"
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
