"""Stage 1, `load`: images to arrays.

Reads   the data set that `dataset` names, a folder or zip archive of JPEG, PNG or BMP files
Writes  data/prepared/{train,validation,test}: images, labels and names of each split
        metrics/load.json: number of images in each split
        plots/samples.png: examples of each class

Validation images are drawn from the training folder first, training images from what is
left, test images from the test folder. What is drawn depends on `seed` and the sorted names
alone: not on the order of a file system, and not on whether it is a folder or an archive.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from stages.arrays import read_split, write_split
from stages.console import InputError, progress, run
from stages.figures import draw_samples
from stages.images import SUFFIXES, BadImageError, Dataset, decode, open_dataset
from stages.outputs import replacing, write_json
from stages.params import Classes, ImageSize, Seed, StageParams, read_params

PREPARED = Path("data/prepared")
METRICS = Path("metrics/load.json")
SAMPLES = Path("plots/samples.png")

BLOCK = 1000  # images that are decoded before they are written
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


def labelled(dataset: Dataset, split: str, classes: list[str]) -> list[str]:
    """Return the names of a split's images.

    Folders that `classes` does not name and files that are not images by their suffix are
    left out, with a line on the console.

    Raises
    ------
    InputError
        If a class has no image.
    """
    names = [name for name in dataset.names if name.startswith(f"{split}/")]
    strangers = sorted({name.split("/")[1] for name in names} - set(classes))
    if strangers:
        print(f"load: left out, not in `classes`: {split}/ {', '.join(strangers)}", flush=True)
    names = [name for name in names if name.split("/")[1] in classes]
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    if len(images) < len(names):
        other = next(name for name in names if not name.lower().endswith(SUFFIXES))
        count = len(names) - len(images)
        print(f"load: left out, not {', '.join(SUFFIXES)}: {count} files, as {other}", flush=True)
    missing = [label for label in classes if label not in {n.split("/")[1] for n in images}]
    if missing:
        raise InputError(
            f"dataset: no images in {split}/{missing[0]}/, which `classes` in params.yaml names; "
            f"{split}/ has {', '.join(sorted({n.split('/')[1] for n in images})) or 'none'}"
        )
    return images


def draw(params: LoadParams, train: list[str], test: list[str]) -> dict[str, list[str]]:
    """Draw the images of each split at random.

    Parameters
    ----------
    params : LoadParams
        `seed` and the number of images wanted for each split.
    train, test : list of str
        The sorted names of all images in the training and the test folder.

    Returns
    -------
    dict of str to list of str
        Names for ``train``, ``validation`` and ``test``, in random order. The first two share
        none. Which images validate does not depend on how many train.

    Raises
    ------
    InputError
        If there are fewer images than asked for.
    """
    pool = np.random.default_rng([params.seed, 0]).permutation(train).tolist()
    validation, rest = pool[: params.validation_images], pool[params.validation_images :]
    testing = np.random.default_rng([params.seed, 1]).permutation(test).tolist()
    for key, names, of in (
        ("validation_images", validation, f"train/ has {len(train)}"),
        ("train_images", rest, f"validation leaves {len(rest)} of train/"),
        ("test_images", testing, f"test/ has {len(test)}"),
    ):
        count = getattr(params, key)
        if len(names) < (count or 1):
            raise InputError(f"params.yaml: {key} is {count or 'null'}, but {of}")
    return {
        "train": rest[: params.train_images],
        "validation": validation,
        "test": testing[: params.test_images],
    }


def decoded(dataset: Dataset, split: str, names: list[str], size: int) -> Iterator[np.ndarray]:
    """Decode images in blocks.

    Yields
    ------
    ndarray of uint8, shape (n, size, size)
        At most `BLOCK` images, in the order of `names`.

    Raises
    ------
    InputError
        If images cannot be read: up to ten of their names, why, and how many they are.
    """
    bad = []
    with progress(f"load: {split}", len(names), "images") as bar:
        for start in range(0, len(names), BLOCK):
            block = np.zeros((len(names[start : start + BLOCK]), size, size), np.uint8)
            for index, name in enumerate(names[start : start + BLOCK]):
                try:
                    block[index] = decode(dataset.read(name), size)
                except BadImageError as error:
                    bad.append(f"  {name}: {error}")
            bar.update(len(block))
            yield block
    if bad:
        listed = "\n".join(bad[:10] + ["  ..."] * (len(bad) > 10))
        raise InputError(f"{len(bad)} of the {len(names)} {split} images cannot be read:\n{listed}")


def main() -> None:
    """Run the stage."""
    params = read_params(LoadParams)
    dataset = open_dataset(Path(params.dataset))
    train = labelled(dataset, "train", params.classes)
    test = labelled(dataset, "test", params.classes)
    splits = draw(params, train, test)
    with ExitStack() as outputs:
        folders = {split: outputs.enter_context(replacing(PREPARED / split)) for split in splits}
        for split, names in splits.items():
            labels = np.array([params.classes.index(name.split("/")[1]) for name in names])
            blocks = decoded(dataset, split, names, params.image_size)
            write_split(folders[split], blocks, labels, names, params.image_size)
            print(f"load: {split}, {len(names):,} images", flush=True)
        samples = outputs.enter_context(replacing(SAMPLES))
        draw_samples(read_split(folders["train"]), params.classes, SAMPLES_A_CLASS, samples)
    write_json(METRICS, {f"{split}_images": len(names) for split, names in splits.items()})


if __name__ == "__main__":
    run("load", main)
