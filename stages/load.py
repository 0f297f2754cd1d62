"""Stage 1, `load`: images to arrays.

Reads   the data set that `dataset` names: a folder or zip archive of JPEG, PNG or BMP files, or
        a folder of such archives
Writes  data/prepared/{train,validation,test}: images, labels and names of each split
        data/prepared/classes.json: names of the classes, by label
        metrics/load.json: number of images in each split, how many could not be read, and
        how many test images are also training or validation images, pixel by pixel
        plots/samples.png: examples of each class

Validation images are chosen from the training folder first, unless the data set has a folder for
them; training images from the rest, test images from the test folder. Where there are class folders
alone, a fifth of each class is set aside for testing, the same for ever. The choice depends on
`data_seed` and the sorted names alone: not on the order of a file system, and not on whether it is
a folder or an archive.

Images pass through in blocks, so that there may be more of them than fit into memory. Of each image
only its name and its place are kept.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from common.console import InputError, run
from common.datasets import Dataset, open_dataset
from common.decoding_pool import BLOCK, DecodedBlock, decode_in_processes
from common.figures import draw_samples
from common.folders import check_dvcignore
from common.layout import listed
from common.outputs import replacing, write_json
from common.params import (
    CHANNELS,
    Classes,
    ColorMode,
    ImageSize,
    Seed,
    StageParams,
    read_params,
)
from common.selection import ALL, Counts, choose_images, find_images, set_test_images_aside
from common.splits import CLASSES, read_split, write_classes, write_split

PREPARED = Path("data/prepared")
METRICS = Path("metrics/load.json")
SAMPLES = Path("plots/samples.png")
SAMPLES_A_CLASS = 12

Count = Annotated[int, Field(ge=1)]


class LoadParams(StageParams):
    """What `load` reads of params.yaml."""

    data_seed: Seed
    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")
    classes: Classes | None = Field(
        description="a list of two or more different folder names, or null for all folders"
    )
    color_mode: ColorMode
    image_size: ImageSize
    train_images: Count | None = Field(description="a whole number from 1, or null for all")
    validation_images: Count | None = Field(description="a whole number from 1, or null for all")
    test_images: Count | None = Field(description="a whole number from 1, or null for all")
    bad_images: Literal["error", "skip"] = Field(description="error or skip")


@dataclass
class Report:
    """What there is to report of the images once all are decoded.

    Attributes
    ----------
    problems : list of str
        A line for each image that cannot be read: its name and why.
    lost_colour : int
        Number of images that are stored in colour and became grey.
    """

    problems: list[str] = field(default_factory=list)
    lost_colour: int = 0


def label_blocks(
    blocks: Iterable[DecodedBlock], dataset: Dataset, classes: list[str], report: Report
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
    report : Report
        It grows by what there is to report of the images.

    Yields
    ------
    (ndarray of uint8, list of str, list of int)
        Images, names and labels, as `write_split` takes them.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    depth = 1 if dataset.has_splits else 0
    for block in blocks:
        names = [dataset.names[index] for index in block.indices]
        report.problems += [f"{dataset.names[index]}: {reason}" for index, reason in block.problems]
        report.lost_colour += block.lost_colour
        yield block.images, names, [label_of[name.split("/", 2)[depth]] for name in names]


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


def check_each_class(folders: dict[str, Path], classes: list[str]) -> None:
    """Check that each class has an image to train on; say where one has none of another split."""
    for split, folder in folders.items():
        found = np.bincount(read_split(folder).labels, minlength=len(classes))
        missing = listed({name for name, count in zip(classes, found, strict=True) if not count})
        if missing and split == "train":
            raise InputError(
                f"none of the images to train on can be read of {missing}; repair some, or leave "
                "the class out of `classes` in params.yaml"
            )
        if missing:
            print(f"load: warning: no {split} image of {missing}", flush=True)


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
    check_dvcignore(Path(params.dataset), dataset.paths)
    classes, groups = find_images(dataset, params.classes)
    if ALL in groups:
        groups = set_test_images_aside(dataset, groups[ALL])
    wanted = Counts(params.train_images, params.validation_images, params.test_images)
    splits = choose_images(dataset, groups, wanted, params.data_seed)
    image_shape = (params.image_size, params.image_size, CHANNELS[params.color_mode])
    counts: dict[str, int] = {}
    report = Report()
    with ExitStack() as outputs:
        folders = {split: outputs.enter_context(replacing(PREPARED / split)) for split in splits}
        for split, indices in splits.items():
            decoded = outputs.enter_context(
                closing(
                    decode_in_processes(
                        dataset, indices, params.image_size, params.color_mode, f"load: {split}"
                    )
                )
            )
            labelled = label_blocks(decoded, dataset, classes, report)
            longest_name = max(len(dataset.names[index]) for index in indices)
            counts[split] = write_split(folders[split], labelled, image_shape, longest_name)
            print(f"load: {split}, {counts[split]:,} images", flush=True)
        report_problems(report.problems, sum(map(len, splits.values())), params.bad_images)
        for split in splits:
            if not counts[split]:
                raise InputError(f"not one of the {split} images can be read")
        check_each_class(folders, classes)
        duplicates = count_seen_in_training(folders)
        if report.lost_colour:
            print(
                f"load: {report.lost_colour:,} images are stored in colour and became grey; "
                "`color_mode: rgb` in params.yaml keeps the colours",
                flush=True,
            )
        if duplicates:
            print(f"load: warning: {duplicates} test images are also in train/", flush=True)
        draw_samples(
            read_split(folders["train"]),
            classes,
            SAMPLES_A_CLASS,
            outputs.enter_context(replacing(SAMPLES)),
        )
        write_classes(outputs.enter_context(replacing(CLASSES)), classes)
        metrics = {f"{split}_images": count for split, count in counts.items()}
        metrics |= {
            "skipped_images": len(report.problems),
            "test_images_seen_in_training": duplicates,
        }
        write_json(outputs.enter_context(replacing(METRICS)), metrics)


if __name__ == "__main__":
    run("load", main)
