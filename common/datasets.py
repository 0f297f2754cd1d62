"""Find labelled images in a folder or in zip archives.

A data set is a tree of one of two forms, directly below the folder or archive or inside the one
folder that it holds; `common.layout` tells which:

- ``train/<class>/<image>`` and ``test/<class>/<image>``, and ``validation/`` likewise if there is
  one. Images beside them are left out.
- ``<class>/<image>``: class folders alone.

A folder of zip archives is one data set, too: the trees of all of them. What counts as an image:

- Files that end in .jpg, .jpeg, .png or .bmp, in any case, at any depth below the class.
- Hidden files, Thumbs.db, desktop.ini, __MACOSX and lost+found are left by file managers and file
  systems and are ignored.
- Links to files are followed in a folder. Links to folders are refused: DVC does not follow them,
  so that it would not notice when an image behind one changes.
- Names are in Unicode's composed form (NFC) everywhere, as those in `classes` are: "é" is one
  character, though macOS may store "e" and an accent.

How an image is decoded is said in `common.decoding`.
"""

import functools
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from common import archives
from common.console import InputError
from common.decoding import BadImageError
from common.folders import list_folder, read_file, walk
from common.layout import FORMS, IGNORED, find_files, is_image, wrapping_folder


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
        stored_names = walk(path)  # as the file system spells them
        wrapper = wrapping_folder(stored_names)
        self.root = path / wrapper
        stored_names = [name.removeprefix(wrapper) for name in stored_names]
        names = [composed(name) for name in stored_names]
        indices, self.has_splits = find_files(names, path)
        self.names = [names[index] for index in indices]
        self.stored_names = [stored_names[index] for index in indices]
        for index in repeated(self.names):
            raise InputError(
                f"{path} holds more than one {self.names[index]!r}: {self.stored_names[index]!a} "
                f"and {self.stored_names[index + 1]!a} differ only in how accents are stored; make "
                "the names unique"
            )

    @property
    def paths(self) -> Iterator[str]:
        """The images on disk."""
        return (f"{self.root}/{name}" for name in self.stored_names if is_image(name))

    def read(self, index: int) -> bytes:
        """Return the bytes of one file."""
        return read_file(f"{self.root}/{self.stored_names[index]}")


class ArchiveDataset:
    """A data set in one or several zip archives, read where they lie; see `Dataset`."""

    def __init__(self, path: Path, paths: list[Path]) -> None:
        self.paths = paths
        names: list[str] = []
        places = []
        for number, archive_path in enumerate(paths):
            names_in_archive, places_in_archive = list_archive(archive_path, number)
            wrapper = wrapping_folder(names_in_archive)
            names_in_archive = [name.removeprefix(wrapper) for name in names_in_archive]
            if len(paths) > 1 and not any("/" in name for name in names_in_archive):
                raise InputError(
                    f"{archive_path} has no images in class folders, as each archive in {path} must"
                )
            names += names_in_archive
            places.append(places_in_archive)
        indices, self.has_splits = find_files(names, path)
        self.names = [names[index] for index in indices]
        self.places = np.concatenate(places)[indices]
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
        does not know, or holds a link or a name that no folder below it could hold.
    """
    names: list[str] = []
    places = bytearray()
    try:
        if path.exists() and not path.is_file():  # to open a named pipe would be to wait for ever
            raise InputError(f"{path} is neither a file nor a folder")
        for stored_name, flags, mode, *place in archives.members_of(path):
            if flags & archives.IS_ENCRYPTED:
                raise InputError(f"{path} is encrypted; it must be a plain zip archive")
            if "\0" in stored_name:
                raise InputError(f"{path} holds a name with a zero byte, {stored_name!r}: refused")
            name = plain_name(stored_name)
            if name is None:
                raise InputError(f"{path} holds a name outside of itself, {stored_name!r}: refused")
            if name and stored_name[-1] != "/" and not IGNORED.search(name):
                if stat.S_ISLNK(mode):
                    raise InputError(
                        f"{path} holds the link {name!r}; make the archive anew with what links "
                        "lead to in place of the links, as zip does without --symlinks"
                    )
                names.append(composed(name))
                places += archives.PLACE_STRUCT.pack(number, *place)
        file_places = np.frombuffer(places, archives.PLACE)
        archives.check_offsets(path, file_places["f5"])
    except archives.LIST_ERRORS as error:
        raise InputError(f"{path} is not a whole zip archive: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    unknown = archives.unknown_compression(set(file_places["f1"].tolist()))
    if unknown:
        raise InputError(
            f"{path} is compressed by the method {unknown}, which Python cannot unpack; make the "
            "archive anew with deflate, the usual method, or without compression"
        )
    return names, file_places


def plain_name(stored_name: str) -> str | None:
    """Return the name of a file in an archive as a folder would have it.

    Returns
    -------
    str or None
        "" for the root itself; None where the name leads out of the archive.

    Examples
    --------
    >>> plain_name("./train//a.png"), plain_name("../a.png")
    ('train/a.png', None)
    """
    if stored_name.startswith("/"):
        return None
    if "//" not in stored_name and "./" not in stored_name and ".." not in stored_name:
        return stored_name
    parts = [part for part in stored_name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def open_dataset(path: Path) -> "FolderDataset | ArchiveDataset":
    """Open a data set.

    Parameters
    ----------
    path : Path
        A folder of images, a zip archive, or a folder of zip archives.

    Raises
    ------
    InputError
        If there is no such path, it cannot be read, it is none of them, or it is not clear which
        images train and which test.
    """
    inside, folders = list_folder(path)
    zips = [entry for entry in inside if entry.suffix.lower() == ".zip" and entry not in folders]
    if zips and folders:
        raise InputError(
            f"dataset: {path} holds the zip archive {zips[0].name} beside the folder "
            f"{folders[0].name}; it must hold archives alone, or none"
        )
    if zips:
        return ArchiveDataset(path, zips)
    if path.is_dir():
        return FolderDataset(path)
    if path.is_file():
        return ArchiveDataset(path, [path])
    raise InputError(
        f"dataset: {path} does not exist; it must be a folder or zip archive of {FORMS}"
    )


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
