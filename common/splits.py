"""A prepared split on disk: images, labels and names as three .npy files in a folder."""

import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.console import InputError


class MappedImages:
    """Images on disk, of which only those that are asked for are read.

    Parameters
    ----------
    array : memmap of uint8, shape (N, H, W, C)
        The images. What was read of a memory map counts as memory of the process until it is
        given back to the system, which is done here at once.
    """

    def __init__(self, array: np.memmap) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: npt.ArrayLike | slice | tuple) -> np.ndarray:
        images = np.array(self.array[index])  # type: ignore[index]
        memory_map = self.array.base
        assert isinstance(memory_map, mmap.mmap)
        if hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system takes it when it needs memory
            memory_map.madvise(mmap.MADV_DONTNEED)
        return images


CLASSES = Path("data/prepared/classes.json")


def write_classes(path: Path, classes: list[str]) -> None:
    """Write the names of the classes, by label, one a line."""
    path.write_text(json.dumps(classes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_classes(path: Path = CLASSES) -> list[str]:
    """Read the names of the classes, by label, that `write_classes` wrote.

    Raises
    ------
    InputError
        If there is no such file, or it is no list of two or more different names.
    """
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); run `dvc repro load`") from None
    is_list_of_names = isinstance(classes, list) and all(isinstance(n, str) for n in classes)
    if not is_list_of_names or not 2 <= len(classes) == len(set(classes)):
        raise InputError(f"{path} holds no list of class names; run `dvc repro load`")
    return classes


@dataclass(frozen=True)
class Split:
    """A prepared split, memory-mapped.

    Attributes
    ----------
    images : MappedImages of uint8, shape (N, H, W, 1 or 3)
        Grey levels, or red, green and blue; 0 to 255.
    labels : ndarray of int64, shape (N,)
        Index into the names of `read_classes`.
    names : ndarray of str, shape (N,)
        Path of the image below the root of the data set, as ``test/3/18.jpg``.
    """

    images: MappedImages
    labels: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class NpyWriter:
    """A .npy file that grows row by row.

    Parameters
    ----------
    path : Path
        The file, which is made.
    dtype : dtype
        Of its elements.
    row_shape : tuple of int
        Shape of a row.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self.file = path.open("wb")
        self.write_header()

    def write_header(self) -> None:
        """Write what the file holds; NumPy leaves room in it for the number of rows to grow."""
        header = {
            "descr": self.dtype.str,
            "fortran_order": False,
            "shape": (self.rows, *self.row_shape),
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, rows: np.ndarray | Sequence) -> None:
        """Write rows."""
        self.file.write(np.asarray(rows, self.dtype).tobytes())
        self.rows += len(rows)

    def __enter__(self) -> "NpyWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with self.file:
            self.file.seek(0)
            self.write_header()


def write_split(
    folder: Path,
    blocks: Iterable[tuple[np.ndarray, list[str], list[int]]],
    image_shape: tuple[int, int, int],
    name_length: int,
) -> int:
    """Write a split; it passes through in blocks and is never held as a whole.

    Parameters
    ----------
    folder : Path
        Where to write; it is made.
    blocks : iterable of (ndarray, list of str, list of int)
        Images, uint8 of shape (n, H, W, C), their names and their labels.
    image_shape : tuple of int
        Height, width and channels.
    name_length : int
        Length of the longest name, in characters.

    Returns
    -------
    int
        Number of images written.
    """
    folder.mkdir(parents=True)
    with (
        NpyWriter(folder / "images.npy", np.uint8, image_shape) as images,
        NpyWriter(folder / "labels.npy", np.int64) as labels,
        NpyWriter(folder / "names.npy", np.dtype((np.str_, name_length))) as names,
    ):
        for block_images, block_names, block_labels in blocks:
            images.append(block_images)
            names.append(block_names)
            labels.append(block_labels)
    return labels.rows


def read_split(folder: Path) -> Split:
    """Open a split that `write_split` wrote.

    Parameters
    ----------
    folder : Path
        ``data/prepared/train``, for example.

    Returns
    -------
    Split
        Memory-mapped: an image is read when it is asked for.

    Raises
    ------
    InputError
        If a file is missing, damaged, or not of the type and shape that belong there.
    """

    def read(name: str, dtype: type[np.generic], ndim: int) -> np.memmap:
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read ({error}); run `dvc repro load`") from None
        if not np.issubdtype(array.dtype, dtype) or array.ndim != ndim:
            raise InputError(
                f"{path} holds {array.dtype} {array.shape}; it must be {dtype.__name__} in "
                f"{ndim} dimensions; run `dvc repro load`"
            )
        return array

    split = Split(
        images=MappedImages(read("images", np.uint8, 4)),
        labels=read("labels", np.int64, 1),
        names=read("names", np.str_, 1),
    )
    if not len(split.images) == len(split.labels) == len(split.names):
        raise InputError(
            f"{folder} holds {len(split.images)} images, {len(split.labels)} labels and "
            f"{len(split.names)} names; it must be one of each; run `dvc repro load`"
        )
    return split
