"""Our side of the comparisons that look inside a stage.

    python -m bench.ours NAME [ARGUMENT ...]

NAME is `decode`, `train` or `compare`. It runs in a folder with a params.yaml. The last line
that it prints holds the figures, as JSON.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.named import print_figures
from common.params import read_params

COMPARED_IMAGES = 10_000
COMPARED_TURNS = 5


def decode(dataset_path: str) -> dict[str, float]:
    """Find and decode all images of a data set, as `load` does."""
    from common.datasets import open_dataset
    from common.decoding_pool import decode_in_processes
    from common.selection import find_images
    from stages.load import LoadParams

    params = read_params(LoadParams)
    start = time.perf_counter()
    dataset = open_dataset(Path(dataset_path))
    _, groups = find_images(dataset, params.classes)
    indices = np.concatenate(list(groups.values()))
    blocks = decode_in_processes(
        dataset, indices, params.image_size, params.color_mode, title="decode"
    )
    images = sum(len(block.images) for block in blocks)
    return {"images_per_second": images / (time.perf_counter() - start)}


def train() -> dict[str, float]:
    """Train for three epochs as `train` does. The first is not measured: the graph is made."""
    from common.augmentation import augment
    from common.splits import read_split
    from common.training_loop import make_steps, run_epoch
    from stages.train import PREPARED, TrainParams, compiled_model

    params = read_params(TrainParams)
    split = read_split(PREPARED / "train")
    model = compiled_model(params, split)
    steps = make_steps(model, params.batch_size, training=True)

    def train_epoch(epoch: int) -> None:
        rng = np.random.default_rng(epoch)
        transform = partial(augment, params=params, rng=rng)
        order = rng.permutation(len(split))
        run_epoch(model, steps, split, order, params.batch_size, "epoch", transform)

    train_epoch(0)
    start = time.perf_counter()
    train_epoch(1)
    train_epoch(2)
    return {"images_per_second": 2 * len(split) / (time.perf_counter() - start)}


def compare(*folders: str) -> dict[str, float]:
    """Measure the processor time of an image in training, for the images of several folders.

    Each turn trains on as many images of each folder. The first turn is not measured: the graph
    is made.

    Returns
    -------
    dict of str to float
        Microseconds by folder, the median of the turns.
    """
    from common.splits import read_split
    from common.training_loop import make_steps, run_epoch
    from stages.train import PREPARED, TrainParams, compiled_model

    params = read_params(TrainParams)
    splits = [read_split(Path(folder) / PREPARED / "train") for folder in folders]
    model = compiled_model(params, splits[0])
    steps = make_steps(model, params.batch_size, training=True)
    microseconds = np.empty((1 + COMPARED_TURNS, len(splits)))
    for turn in range(1 + COMPARED_TURNS):
        for index, split in enumerate(splits):
            order = np.random.default_rng(turn).integers(len(split), size=COMPARED_IMAGES)
            start = time.process_time()
            run_epoch(model, steps, split, order, params.batch_size, "epoch")
            microseconds[turn, index] = (time.process_time() - start) / COMPARED_IMAGES * 1e6
    medians = np.median(microseconds[1:], axis=0)
    return dict(zip(folders, medians.tolist(), strict=True))


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    "decode": decode,
    "train": train,
    "compare": compare,
}

if __name__ == "__main__":
    print_figures(MEASUREMENTS)
