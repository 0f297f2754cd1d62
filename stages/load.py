"""Stage 1, `load`: images to arrays.

Reads   the data set that `dataset` names: a folder or zip archive of JPEG, PNG or BMP files, or
        a folder of such archives
Writes  data/prepared/{train,validation,test}: images, labels and names of each split
        metrics/load.json: number of images in each split, how many could not be read, and
        how many test images are also training or validation images, pixel by pixel
        plots/samples.png: examples of each class

Validation images are chosen from the training folder first, training images from the rest, test
images from the test folder. The choice depends on `seed` and the sorted names alone: not on the
order of a file system, and not on whether it is a folder or an archive.

Images pass through in blocks, so that there may be more of them than fit into memory. Of each image
only its name and its place are kept.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from common.console import InputError, run
from common.datasets import SUFFIXES, Dataset, open_dataset
from common.decoding_pool import BLOCK, DecodedBlock, decode_in_processes
from common.figures import draw_samples
from common.outputs import replacing, write_json
from common.params import Classes, ImageSize, Seed, StageParams, read_params
from common.splits import read_split, write_split

PREPARED = Path("data/prepared")
METRICS = Path("metrics/load.json")
SAMPLES = Path("plots/samples.png")
SAMPLES_A_CLASS = 12

Count = Annotated[int, Field(ge=1)]


class LoadParams(StageParams):
    """What `load` reads of params.yaml."""

    seed: Seed
    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")
    classes: Classes
    image_size: ImageSize
    train_images: Count | None = Field(description="a whole number from 1, or null for all")
    validation_images: Count = Field(description="a whole number from 1")
    test_images: Count | None = Field(description="a whole number from 1, or null for all")
    bad_images: Literal["error", "skip"] = Field(description="error or skip")


def find_images(dataset: Dataset, split: str, classes: list[str]) -> np.ndarray:
    """Return which files of a data set are the images of a split.

    Folders that `classes` does not name and files that are not images by their suffix are
    left out, with a line on the console.

    Returns
    -------
    ndarray of int64, shape (N,)
        Indices of ``dataset.names``, ascending.

    Raises
    ------
    InputError
        If a class has no image.
    """
    indices = array("q")
    classes_with_images, other_folders, other_files = set(), set(), []
    for index, name in enumerate(dataset.names):
        folder, class_name, _ = name.split("/", 2)
        if folder != split:
            continue
        if class_name not in classes:
            other_folders.add(class_name)
        elif not name.lower().endswith(SUFFIXES):
            other_files.append(name)
        else:
            classes_with_images.add(class_name)
            indices.append(index)
    if other_folders:
        names = ", ".join(sorted(other_folders))
        print(f"load: left out, not in `classes`: {split}/ {names}", flush=True)
    if other_files:
        suffixes = ", ".join(SUFFIXES)
        print(
            f"load: left out, not {suffixes}: {len(other_files)} files, as {other_files[0]}",
            flush=True,
        )
    missing = [name for name in classes if name not in classes_with_images]
    if missing:
        raise InputError(
            f"dataset: no images in {split}/{missing[0]}/, which `classes` in params.yaml names; "
            f"{split}/ has {', '.join(sorted(classes_with_images)) or 'none'}"
        )
    return np.array(indices, np.int64)


def choose_images(params: LoadParams, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Choose the images of each split at random.

    Parameters
    ----------
    params : LoadParams
        `seed` and the number of images wanted for each split.
    train, test : ndarray of int64
        All images in the training and the test folder, from `find_images`.

    Returns
    -------
    dict of str to ndarray of int64
        Images for ``train``, ``validation`` and ``test``, in random order. The first two
        share none. Which images validate does not depend on how many train.

    Raises
    ------
    InputError
        If there are fewer images than asked for.
    """
    shuffled = np.random.default_rng([params.seed, 0]).permutation(train)
    validation, rest = shuffled[: params.validation_images], shuffled[params.validation_images :]
    shuffled_test = np.random.default_rng([params.seed, 1]).permutation(test)
    for key, available, description in (
        ("validation_images", validation, f"train/ has {len(train)}"),
        ("train_images", rest, f"validation leaves {len(rest)} of train/"),
        ("test_images", shuffled_test, f"test/ has {len(test)}"),
    ):
        wanted = getattr(params, key)
        if len(available) < (wanted or 1):
            raise InputError(f"params.yaml: {key} is {wanted or 'null'}, but {description}")
    return {
        "train": rest[: params.train_images],
        "validation": validation,
        "test": shuffled_test[: params.test_images],
    }


def label_blocks(
    blocks: Iterable[DecodedBlock], dataset: Dataset, classes: list[str], problems: list[str]
) -> Iterator[tuple[np.ndarray, list[str], list[int]]]:
    """Give the images of each block their names and labels.

    Parameters
    ----------
    blocks : iterable of DecodedBlock
        From `decode_in_processes`.
    dataset : Dataset
        Where the images are.
    classes : list of str
        Names of the classes, by label.
    problems : list of str
        Grows by a line for each image that cannot be read: its name and why.

    Yields
    ------
    (ndarray of uint8, list of str, list of int)
        Images, names and labels, as `write_split` takes them.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    for block in blocks:
        names = [dataset.names[index] for index in block.indices]
        problems += [f"{dataset.names[index]}: {reason}" for index, reason in block.problems]
        yield block.images, names, [label_of[name.split("/", 2)[1]] for name in names]


def report_problems(problems: list[str], images: int, bad_images: str) -> None:
    """Say which images cannot be read, up to ten of them.

    Parameters
    ----------
    problems : list of str
        A line for each image that cannot be read.
    images : int
        Number of images that were to be read.
    bad_images : str
        ``error`` or ``skip``.

    Raises
    ------
    InputError
        If `bad_images` is ``error`` and there are such images.
    """
    if not problems:
        return
    listed = "\n  ".join(problems[:10] if len(problems) <= 10 else [*problems[:10], "..."])
    message = f"{len(problems)} of {images} images cannot be read:\n  {listed}"
    if bad_images == "error":
        raise InputError(f"{message}\n`bad_images: skip` in params.yaml leaves them out")
    print(f"load: left out: {message}", flush=True)


def count_seen_in_training(folders: dict[str, Path]) -> int:
    """Count the test images that are also training or validation images, pixel by pixel."""

    def hash_images(split: str) -> np.ndarray:
        images = read_split(folders[split]).images
        hashes = bytearray()
        for start in range(0, len(images), BLOCK):
            for image in images[start : start + BLOCK]:
                hashes += hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        return np.frombuffer(hashes, np.uint64)

    training = np.concatenate([hash_images("train"), hash_images("validation")])
    return int(np.isin(hash_images("test"), training).sum())


def main() -> None:
    """Run the stage."""
    params = read_params(LoadParams)
    dataset = open_dataset(Path(params.dataset))
    train = find_images(dataset, "train", params.classes)
    test = find_images(dataset, "test", params.classes)
    splits = choose_images(params, train, test)
    counts: dict[str, int] = {}
    problems: list[str] = []
    with ExitStack() as outputs:
        folders = {split: outputs.enter_context(replacing(PREPARED / split)) for split in splits}
        for split, indices in splits.items():
            blocks = outputs.enter_context(
                closing(decode_in_processes(dataset, indices, params.image_size, f"load: {split}"))
            )
            labelled = label_blocks(blocks, dataset, params.classes, problems)
            longest_name = max(len(dataset.names[index]) for index in indices)
            counts[split] = write_split(folders[split], labelled, params.image_size, longest_name)
            print(f"load: {split}, {counts[split]:,} images", flush=True)
        report_problems(problems, sum(map(len, splits.values())), params.bad_images)
        for split in splits:
            if not counts[split]:
                raise InputError(f"not one of the {split} images can be read")
        duplicates = count_seen_in_training(folders)
        if duplicates:
            print(f"load: warning: {duplicates} test images are also in train/", flush=True)
        draw_samples(
            read_split(folders["train"]),
            params.classes,
            SAMPLES_A_CLASS,
            outputs.enter_context(replacing(SAMPLES)),
        )
        metrics = {f"{split}_images": count for split, count in counts.items()}
        metrics |= {"skipped_images": len(problems), "test_images_seen_in_training": duplicates}
        write_json(outputs.enter_context(replacing(METRICS)), metrics)


if __name__ == "__main__":
    run("load", main)
