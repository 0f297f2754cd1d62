"""Find labelled images in a folder or in zip archives.

A data set is a tree of one of two forms, directly below the folder or archive or inside the one
folder that it holds:

- ``train/<class>/<image>`` and ``test/<class>/<image>``, and ``validation/`` or ``val/`` likewise
  if there is one. Other folders beside them are left out.
- ``<class>/<image>``: class folders alone.

A folder of zip archives is one data set, too: the trees of all of them. What counts as an image:

- Files that end in .jpg, .jpeg, .png or .bmp, in any case, at any depth below the class.
- Hidden files, Thumbs.db, desktop.ini and __MACOSX are left by file managers and are ignored.
- Symbolic links are followed in a folder.
- Names are in Unicode's composed form (NFC) everywhere, as those in `classes` are: "é" is one
  character, though macOS may store "e" and an accent.

How an image is decoded is said in `common.decoding`.
"""

import functools
import itertools
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from common import archives
from common.console import InputError
from common.decoding import BadImageError

SPLIT_OF_FOLDER = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
FORMS = "train/<class>/ and test/<class>/, or class folders alone, or zip archives of one of these"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
IGNORED = re.compile(r"(^|/)(\.|(thumbs\.db|desktop\.ini|__macosx)(/|$))", re.IGNORECASE)


class Dataset(Protocol):
    """Labelled images.

    Attributes
    ----------
    names : list of str
        Path of each file below a class, sorted; ignored files left out. It begins with
        ``train/<class>/`` or the like where `has_splits`, otherwise with ``<class>/``.
    has_splits : bool
        Whether the data set says which images are for training and which for testing.
    """

    names: list[str]
    has_splits: bool

    def read(self, index: int) -> bytes:
        """Return the bytes of ``names[index]``; raise `BadImageError` where that fails."""
        ...


class FolderDataset:
    """A data set in a plain folder; see `Dataset`."""

    def __init__(self, path: Path) -> None:
        self.root = path
        inside = [entry for entry in path.iterdir() if not IGNORED.search(entry.name)]
        if len(inside) == 1 and inside[0].is_dir() and inside[0].name not in SPLIT_OF_FOLDER:
            self.root = inside[0]
        folders = [folder for folder in SPLIT_OF_FOLDER if (self.root / folder).is_dir()]
        names = [f"{folder}/{name}" for folder in folders for name in walk(self.root / folder)]
        self.has_splits = bool(names)
        if self.has_splits:  # what lies beside these folders is not even looked at
            names = [name for name in names if is_in_split(name)]
        else:
            names = [name for name in walk(self.root) if "/" in name]
        self.stored_names = sorted(names, key=composed)  # as the file system spells them
        self.names = [composed(name) for name in self.stored_names]
        for index in repeated(self.names):
            raise InputError(
                f"{path} holds more than one {self.names[index]!r}: {self.stored_names[index]!a} "
                f"and {self.stored_names[index + 1]!a} differ only in how accents are stored; make "
                "the names unique"
            )

    def read(self, index: int) -> bytes:
        """Return the bytes of one file."""
        return read_file(f"{self.root}/{self.stored_names[index]}")


def read_file(path: str) -> bytes:
    """Return the bytes of a file; raise `BadImageError` where that fails."""
    try:
        # O_NONBLOCK, because opening a named pipe would otherwise wait for ever.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not a regular file")
            return os.read(file, status.st_size + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from None


class ArchiveDataset:
    """A data set in one or several zip archives, read where they lie; see `Dataset`."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        names: list[str] = []
        places = []
        for number, path in enumerate(paths):
            names_in_archive, places_in_archive = list_files(path, number)
            if len(paths) > 1 and not names_in_archive:
                raise InputError(
                    f"{path} has no images in class folders, as each archive in {path.parent} must"
                )
            names += names_in_archive
            places.append(places_in_archive)
        self.has_splits = any(name.split("/", 1)[0] in SPLIT_OF_FOLDER for name in names)
        chosen = [
            index for index, name in enumerate(names) if is_in_split(name) or not self.has_splits
        ]
        order = sorted(chosen, key=names.__getitem__)
        self.names = [names[index] for index in order]
        self.places = np.concatenate(places)[order]
        for index in repeated(self.names):
            first, second = (paths[place[0]] for place in self.places[index : index + 2])
            where = f"{first} holds" if first == second else f"{first} and {second} hold"
            name = self.names[index]
            raise InputError(f"{where} more than one {name!r}: make the names unique")

    def __getstate__(self) -> dict:
        """Leave out the opened archives: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "files"}

    @functools.cached_property
    def files(self) -> list[int]:
        """The archives, opened by each process that reads from them."""
        return [os.open(path, os.O_RDONLY) for path in self.paths]

    def read(self, index: int) -> bytes:
        """Return the bytes of one member of an archive."""
        number, *place = self.places[index].item()
        try:
            return archives.read_member(self.files[number], place)
        except archives.READ_ERRORS as error:
            raise BadImageError(f"cannot be read: {error}") from None


def list_files(path: Path, number: int) -> tuple[list[str], np.ndarray]:
    """Return the names of an archive's files in folders, below the root of the data set.

    Parameters, places and errors are those of `list_archive`.
    """
    names, places = list_archive(path, number)
    top_folders = {name.partition("/")[0] for name in names}
    if len(top_folders) == 1 and not top_folders & set(SPLIT_OF_FOLDER):
        prefix = f"{top_folders.pop()}/"
        names = [name.removeprefix(prefix) for name in names]
    is_in_folder = ["/" in name for name in names]
    return list(itertools.compress(names, is_in_folder)), places[is_in_folder]


def list_archive(path: Path, number: int) -> tuple[list[str], np.ndarray]:
    """Return the names of an archive's files, and where they are.

    Parameters
    ----------
    path : Path
        The archive.
    number : int
        Which of several archives it is.

    Returns
    -------
    (list of str, ndarray of `archives.PLACE`)
        In the order of the directory; ignored files left out.

    Raises
    ------
    InputError
        If it is not a whole archive, is encrypted, is compressed in a way that `zipfile`
        does not know, or holds a name outside of itself.
    """
    names: list[str] = []
    places = bytearray()
    try:
        for name, flags, *place in archives.members_of(path):
            if flags & archives.IS_ENCRYPTED:
                raise InputError(f"{path} is encrypted; it must be a plain zip archive")
            if name.startswith("/") or (".." in name and ".." in name.split("/")):
                raise InputError(f"{path} holds a name outside of itself, {name!r}: refused")
            if name[-1:] != "/" and not IGNORED.search(name):
                names.append(composed(name))
                places += archives.PLACE_STRUCT.pack(number, *place)
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path} is not a whole zip archive: {error}") from None
    file_places = np.frombuffer(places, archives.PLACE)
    unknown = archives.unknown_compression(set(file_places["f1"].tolist()))
    if unknown:
        raise InputError(
            f"{path} is compressed by the method {unknown}, which Python cannot unpack; make the "
            "archive anew with deflate, the usual method, or without compression"
        )
    return names, file_places


def is_in_split(name: str) -> bool:
    """Tell whether a file lies in a class folder of a split."""
    return name.count("/") > 1 and name.split("/", 1)[0] in SPLIT_OF_FOLDER


def open_dataset(path: Path) -> Dataset:
    """Open a data set.

    Parameters
    ----------
    path : Path
        A folder of images, a zip archive, or a folder of zip archives.

    Raises
    ------
    InputError
        If there is no such path, or it is none of them, or it has `train` but no `test`.
    """
    inside = sorted(entry for entry in path.glob("*") if not IGNORED.search(entry.name))
    zips = [entry for entry in inside if entry.suffix.lower() == ".zip" and entry.is_file()]
    folders = [entry for entry in inside if entry.is_dir()]
    if zips and folders:
        raise InputError(
            f"dataset: {path} holds the zip archive {zips[0].name} beside the folder "
            f"{folders[0].name}; it must hold archives alone, or none"
        )
    dataset: Dataset
    if zips:
        dataset = ArchiveDataset(zips)
    elif path.is_dir():
        dataset = FolderDataset(path)
    elif path.is_file():
        dataset = ArchiveDataset([path])
    else:
        raise InputError(
            f"dataset: {path} does not exist; it must be a folder or zip archive of {FORMS}"
        )
    if not dataset.names:
        raise InputError(f"dataset: {path} has no images in class folders; it must hold {FORMS}")
    splits = {name.split("/", 1)[0] for name in dataset.names}
    for split in ("train", "test") if dataset.has_splits else ():
        if split not in splits:
            raise InputError(
                f"dataset: {path} has no images in {split}/<class>/; it must hold {FORMS}"
            )
    if {"validation", "val"} <= splits and dataset.has_splits:
        raise InputError(f"dataset: {path} holds both validation/ and val/; it must hold one")
    return dataset


def walk(folder: Path) -> list[str]:
    """Return the files below a folder's folders, relative to it, links followed."""
    names = []
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real_path = os.path.realpath(parent)
        if real_path in visited:
            raise InputError(f"{parent} is a link to a folder that is in the data set already")
        visited.add(real_path)
        folders[:] = [name for name in folders if not IGNORED.search(name)]
        below = os.path.relpath(parent, folder)
        prefix = "" if below == os.curdir else f"{below}/"
        names += [prefix + name for name in files if not IGNORED.search(name)]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder} holds a name that is not UTF-8: {name!r}") from None
    return names


def composed(name: str) -> str:
    """Return a name in the form in which names are compared; see the top of this file."""
    return unicodedata.normalize("NFC", name)


def repeated(names: list[str]) -> Iterator[int]:
    """Yield the index of each name, in sorted names, that the next name equals.

    Examples
    --------
    >>> list(repeated(["a", "b", "b", "c"]))
    [1]
    """
    for index, (name, following) in enumerate(itertools.pairwise(names)):
        if name == following:
            yield index
