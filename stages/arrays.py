"""A prepared split on disk: images, labels and names as three .npy files in a folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.console import InputError


@dataclass(frozen=True)
class Split:
    """A prepared split, memory-mapped.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, H, W, 1)
        Grey levels from 0 to 255.
    labels : ndarray of int64, shape (N,)
        Index into `classes`.
    names : ndarray of str, shape (N,)
        Path of the image below the root of the dataset, as ``test/3/18.jpg``.
    """

    images: np.ndarray
    labels: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def write_split(
    folder: Path, blocks: Iterable[tuple[np.ndarray, list[str], list[int]]], image_size: int
) -> int:
    """Write a split; the images pass through in blocks and are never held as a whole.

    Parameters
    ----------
    folder : Path
        Where to write; it is made.
    blocks : iterable of (ndarray, list of str, list of int)
        Images, uint8 of shape (n, image_size, image_size), their names and their labels.
    image_size : int
        Height and width, in pixels.

    Returns
    -------
    int
        Number of images written.
    """
    folder.mkdir(parents=True)
    names: list[str] = []
    labels: list[int] = []

    def write_header(file: BinaryIO) -> None:
        shape = (len(labels), image_size, image_size, 1)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    with (folder / "images.npy").open("wb") as file:
        write_header(file)
        for images, block_names, block_labels in blocks:
            file.write(images.tobytes())
            names += block_names
            labels += block_labels
        file.seek(0)
        write_header(file)  # NumPy leaves room in it for the number to grow
    np.save(folder / "labels.npy", np.array(labels, np.int64))
    np.save(folder / "names.npy", np.array(names, np.str_))
    return len(labels)


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

    split = Split(
        read("images", np.uint8, 4), read("labels", np.int64, 1), read("names", np.str_, 1)
    )
    if not len(split.images) == len(split.labels) == len(split.names):
        raise InputError(
            f"{folder} holds {len(split.images)} images, {len(split.labels)} labels and "
            f"{len(split.names)} names; it must be one of each; run `dvc repro load`"
        )
    return split
