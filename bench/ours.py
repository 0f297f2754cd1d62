"""Our side of the comparisons that look inside a stage.

Usage: python ours.py NAME ARGUMENTS, in a folder with a params.yaml; the last line it prints
is the figures, as JSON. `stages` must be on PYTHONPATH.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from stages.params import read_params


def decode(dataset: str) -> dict[str, float]:
    """Find and decode all images of a data set, as `load` does."""
    from stages import load

    params = read_params(load.LoadParams)
    start = time.perf_counter()
    images = load.open_dataset(Path(dataset))
    numbers = [load.labelled(images, split, params.classes) for split in ("train", "test")]
    blocks = load.decoded(images, np.concatenate(numbers), params, [])
    count = sum(len(block) for block, _, _ in blocks)
    return {"images_per_second": count / (time.perf_counter() - start)}


def train() -> dict[str, float]:
    """Train for three epochs as `train` does; the first warms up."""
    from stages import train

    params = read_params(train.TrainParams)
    split = train.read_split(train.PREPARED / "train")
    model = train.compiled_model(params, split)
    steps = train.steps_of(model, params.batch_size, training=True)
    for number in range(3):
        if number == 1:
            start = time.perf_counter()
        rng = np.random.default_rng(number)
        transform = partial(train.augment, params=params, rng=rng)
        order = rng.permutation(len(split))
        train.epoch(model, steps, split, order, params.batch_size, "epoch", transform)
    return {"images_per_second": 2 * len(split) / (time.perf_counter() - start)}


def compare(*folders: str) -> dict[str, float]:
    """Train on as many images from each of some folders in turn; the first turn warms up."""
    from stages import train

    params = read_params(train.TrainParams)
    splits = [train.read_split(folder / train.PREPARED / "train") for folder in map(Path, folders)]
    model = train.compiled_model(params, splits[0])
    steps = train.steps_of(model, params.batch_size, training=True)
    found = np.empty((1 + 5, len(splits)))
    for number, row in enumerate(found):
        for index, split in enumerate(splits):
            order = np.random.default_rng(number).integers(len(split), size=10_000)
            start = time.process_time()
            train.epoch(model, steps, split, order, params.batch_size, "epoch")
            row[index] = (time.process_time() - start) / len(order) * 1e6
    return dict(zip(folders, np.median(found[1:], axis=0), strict=True))


SIDES: dict[str, Callable[..., dict[str, float]]] = {
    "decode": decode,
    "train": train,
    "compare": compare,
}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](*sys.argv[2:])))
