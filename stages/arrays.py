"""A prepared split on disk: images, labels and names as three .npy files in a folder."""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.console import InputError


class Rows:
    """An array on disk of which only what is asked for is read.

    Parameters
    ----------
    array : memmap
        The array. What was read of a memory map counts as memory of the process until it is
        given back to the system, which is done here at once.
    """

    def __init__(self, array: np.memmap) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: object) -> np.ndarray:
        rows = np.array(self.array[index])
        self.array.base.madvise(mmap.MADV_DONTNEED)
        return rows


@dataclass(frozen=True)
class Split:
    """A prepared split, memory-mapped.

    Attributes
    ----------
    images : Rows of uint8, shape (N, H, W, 1)
        Grey levels from 0 to 255.
    labels : ndarray of int64, shape (N,)
        Index into `classes`.
    names : ndarray of str, shape (N,)
        Path of the image below the root of the dataset, as ``test/3/18.jpg``.
    """

    images: Rows
    labels: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class Npy:
    """A .npy file that grows row by row.

    Parameters
    ----------
    path : Path
        The file, which is made.
    dtype : dtype
        Of its elements.
    row : tuple of int
        Shape of a row.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...] = ()) -> None:
        self.dtype, self.row, self.count = np.dtype(dtype), row, 0
        self.file = path.open("wb")
        self.write_header()

    def write_header(self) -> None:
        """Write what the file holds; NumPy leaves room in it for the number to grow."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.row)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, rows: object) -> None:
        """Write rows."""
        self.file.write(np.asarray(rows, self.dtype).tobytes())
        self.count += len(rows)

    def __enter__(self) -> "Npy":
        return self

    def __exit__(self, *_: object) -> None:
        with self.file:
            self.file.seek(0)
            self.write_header()


def write_split(
    folder: Path,
    blocks: Iterable[tuple[np.ndarray, list[str], list[int]]],
    image_size: int,
    name_length: int,
) -> int:
    """Write a split; it passes through in blocks and is never held as a whole.

    Parameters
    ----------
    folder : Path
        Where to write; it is made.
    blocks : iterable of (ndarray, list of str, list of int)
        Images, uint8 of shape (n, image_size, image_size), their names and their labels.
    image_size : int
        Height and width, in pixels.
    name_length : int
        Length of the longest name, in characters.

    Returns
    -------
    int
        Number of images written.
    """
    folder.mkdir(parents=True)
    with (
        Npy(folder / "images.npy", np.uint8, (image_size, image_size, 1)) as images,
        Npy(folder / "labels.npy", np.int64) as labels,
        Npy(folder / "names.npy", np.dtype((np.str_, name_length))) as names,
    ):
        for block_images, block_names, block_labels in blocks:
            images.append(block_images)
            names.append(block_names)
            labels.append(block_labels)
    return labels.count


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

    def read(name: str, dtype: type, ndim: int) -> np.ndarray:
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

    images, labels = Rows(read("images", np.uint8, 4)), read("labels", np.int64, 1)
    split = Split(images, labels, read("names", np.str_, 1))
    if not len(split.images) == len(split.labels) == len(split.names):
        raise InputError(
            f"{folder} holds {len(split.images)} images, {len(split.labels)} labels and "
            f"{len(split.names)} names; it must be one of each; run `dvc repro load`"
        )
    return split
