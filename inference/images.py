"""Find the images to predict: single files, folders and zip archives, with or without classes.

What counts as an image in a folder or an archive is what counts for `load` (`common.datasets`),
but its images may lie at any depth, in folders of any names or in none.
"""

import functools
import os
from array import array
from pathlib import Path

import numpy as np

from common import archives
from common.console import InputError
from common.datasets import composed, list_archive
from common.decoding import BadImageError
from common.folders import read_file, walk
from common.layout import SUFFIXES, is_image, split_of

NO_CLASS = -1  # in place of a label, where no folder tells the class
ON_DISK = 0  # in place of the number of an archive; archives are counted from 1
ARCHIVE_MARK = b"PK"  # the first bytes of every zip archive that holds a file


class Images:
    """Images, in the order of the paths that were given, and by name within each.

    It is a `common.datasets.Dataset`.

    Parameters
    ----------
    paths : list of Path
        Files, folders and zip archives. A file counts as an image whatever it is called.
    classes : list of str
        Names of the classes, by label.

    Attributes
    ----------
    names : list of str
        The path as given, and below a folder or an archive the path in it.
    labels : array of int
        Of which class each is: that of the first folder, counted from the given path, that is
        named like a class. `NO_CLASS` where there is none.
    left_out : list of str
        Files in folders and archives whose names do not end as those of images do.
    from_training : int
        How many of the images with a label lie below a folder train/ or validation/.

    Raises
    ------
    InputError
        If a path does not exist or holds no image, or an archive cannot be read.
    """

    has_splits = False

    def __init__(self, paths: list[Path], classes: list[str]) -> None:
        self.names: list[str] = []
        self.labels = array("i")
        self.left_out: list[str] = []
        self.from_training = 0
        self.archive_paths: list[Path] = []
        self.label_of_class = {name: label for label, name in enumerate(classes)}
        places = [self.find(path) for path in paths]
        self.places = np.concatenate(places)

    def find(self, path: Path) -> np.ndarray:
        """Add the images of one path; return their places."""
        if path.is_dir():
            return self.find_in_folder(path)
        if is_archive(path):
            return self.find_in_archive(path)
        if not path.exists():
            raise InputError(f"{str(path)!r} does not exist; {WANTED}")
        self.names.append(checked(str(path)))
        self.labels.append(NO_CLASS)
        return np.zeros(1, archives.PLACE)

    def find_in_folder(self, path: Path) -> np.ndarray:
        """Add the images below a folder, or of the zip archives where it holds no images."""
        prefix = "" if path == Path() else os.path.join(path, "")  # noqa: PTH118  "/" stays "/"
        names = sorted(walk(path, follow_links=True))
        chosen = [name for name in names if is_image(name)]
        zips = [] if chosen else [name for name in names if name.lower().endswith(".zip")]
        if zips:
            return np.concatenate([self.find_in_archive(path / name) for name in zips])
        self.add(path, prefix, names)
        return np.zeros(len(chosen), archives.PLACE)

    def find_in_archive(self, path: Path) -> np.ndarray:
        """Add the images of an archive."""
        self.archive_paths.append(path)
        names, places = list_archive(path, len(self.archive_paths))
        order = sorted(range(len(names)), key=names.__getitem__)
        is_chosen = self.add(path, f"{path}/", [names[index] for index in order])
        return places[order][is_chosen]

    def add(self, path: Path, prefix: str, names: list[str]) -> list[bool]:
        """Add the images among the files of a path; return of each file whether it is one."""
        checked(prefix)
        before = len(self.names)
        chosen = [is_image(name) for name in names]
        for name, is_chosen in zip(names, chosen, strict=True):
            if is_chosen:
                label, from_training = self.label_of(name.rpartition("/")[0])
                self.names.append(prefix + name)
                self.labels.append(label)
                self.from_training += from_training
            else:
                self.left_out.append(prefix + name)
        if len(self.names) == before:
            raise InputError(f"{str(path)!r} holds no image; {WANTED}")
        return chosen

    @functools.lru_cache(maxsize=1000)  # noqa: B019  there is one object, as long as the process
    def label_of(self, folder: str) -> tuple[int, bool]:
        """Return the label that a folder tells, and whether the model may have learned of it."""
        parts = composed(folder).split("/")
        for depth, part in enumerate(parts):
            if part in self.label_of_class:
                above = {split_of(name) for name in parts[:depth]}
                return self.label_of_class[part], bool(above & {"train", "validation"})
        return NO_CLASS, False

    def __getstate__(self) -> dict:
        """Leave out the opened archives: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "files"}

    @functools.cached_property
    def files(self) -> list[int]:
        """The archives, opened by each process that reads from them."""
        return [os.open(path, os.O_RDONLY) for path in self.archive_paths]

    def read(self, index: int) -> bytes:
        """Return the bytes of ``names[index]``; raise `BadImageError` where that fails."""
        number, *place = self.places[index].item()
        if number == ON_DISK:
            return read_file(self.names[index])
        try:
            return archives.read_member(self.files[number - 1], place)
        except archives.READ_ERRORS as error:
            raise BadImageError(f"cannot be read: {error}") from None


WANTED = (
    f"give image files, or folders or zip archives with files that end in {', '.join(SUFFIXES)}"
)


def checked(path: str) -> str:
    """Return a path that UTF-8 can write, as all results are written; refuse another."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {path!r} is not UTF-8; rename it") from None
    return path


def is_archive(path: Path) -> bool:
    """Tell whether a path is to be read as a zip archive: by its name, or by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".zip" or file.read(2) == ARCHIVE_MARK
