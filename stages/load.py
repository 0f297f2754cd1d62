"""Stage 1, `load`: images to arrays.

Reads   the data set that `dataset` names: a folder or zip archive of JPEG, PNG or BMP files, or
        a folder of such archives
Writes  data/prepared/{train,validation,test}: images, labels and names of each split
        metrics/load.json: number of images in each split, how many could not be read, and
        how many test images are also training or validation images, pixel by pixel
        plots/samples.png: examples of each class

Validation images are drawn from the training folder first, training images from what is
left, test images from the test folder. What is drawn depends on `seed` and the sorted names
alone: not on the order of a file system, and not on whether it is a folder or an archive.

Images pass through in blocks. What is kept of every image is its name and its place.
"""

import hashlib
import os
import signal
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Annotated, Literal

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
BLOCKS_AHEAD = 3  # for each process: one that it decodes, others that wait
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


def labelled(dataset: Dataset, split: str, classes: list[str]) -> np.ndarray:
    """Return which files of a data set are a split's images.

    Folders that `classes` does not name and files that are not images by their suffix are
    left out, with a line on the console.

    Returns
    -------
    ndarray of int64, shape (N,)
        Positions in ``dataset.names``, ascending.

    Raises
    ------
    InputError
        If a class has no image.
    """
    numbers, found, strangers, others = array("q"), set(), set(), []
    for number, name in enumerate(dataset.names):
        top, folder, _ = name.split("/", 2)
        if top != split:
            continue
        if folder not in classes:
            strangers.add(folder)
        elif not name.lower().endswith(SUFFIXES):
            others.append(number)
        else:
            found.add(folder)
            numbers.append(number)
    if strangers:
        listed = ", ".join(sorted(strangers))
        print(f"load: left out, not in `classes`: {split}/ {listed}", flush=True)
    if others:
        known, other = ", ".join(SUFFIXES), dataset.names[others[0]]
        print(f"load: left out, not {known}: {len(others)} files, as {other}", flush=True)
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(
            f"dataset: no images in {split}/{missing[0]}/, which `classes` in params.yaml names; "
            f"{split}/ has {', '.join(sorted(found)) or 'none'}"
        )
    return np.array(numbers, np.int64)


def draw(params: LoadParams, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Draw the images of each split at random.

    Parameters
    ----------
    params : LoadParams
        `seed` and the number of images wanted for each split.
    train, test : ndarray of int64
        All images in the training and the test folder, from `labelled`.

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
    pool = np.random.default_rng([params.seed, 0]).permutation(train)
    validation, rest = pool[: params.validation_images], pool[params.validation_images :]
    testing = np.random.default_rng([params.seed, 1]).permutation(test)
    for key, numbers, of in (
        ("validation_images", validation, f"train/ has {len(train)}"),
        ("train_images", rest, f"validation leaves {len(rest)} of train/"),
        ("test_images", testing, f"test/ has {len(test)}"),
    ):
        count = getattr(params, key)
        if len(numbers) < (count or 1):
            raise InputError(f"params.yaml: {key} is {count or 'null'}, but {of}")
    return {
        "train": rest[: params.train_images],
        "validation": validation,
        "test": testing[: params.test_images],
    }


def decoded(
    dataset: Dataset, numbers: np.ndarray, params: LoadParams, bad: list[str]
) -> Iterator[tuple[np.ndarray, list[str], list[int]]]:
    """Decode images in blocks, a process on each processor.

    Parameters
    ----------
    dataset : Dataset
        Where the images are.
    numbers : ndarray of int64
        Which of them, as positions in ``dataset.names``.
    params : LoadParams
        `classes` and `image_size`.
    bad : list of str
        Grows by a line for each image that cannot be read: its name and why.

    Yields
    ------
    (ndarray of uint8, list of str, list of int)
        At most `BLOCK` images, in the order of `numbers`, with their names and labels.

    Raises
    ------
    InputError
        If the system has no room for the locks that the processes share, or ends a process.
    """
    label_of = {name: label for label, name in enumerate(params.classes)}
    split = dataset.names[numbers[0]].split("/")[0]
    # Threads would wait for each other: a small image is decoded faster than they take turns.
    processes = len(os.sched_getaffinity(0))
    fork = get_context("fork")
    try:
        pool = ProcessPoolExecutor(processes, fork, adopt, (dataset, params.image_size))
    except OSError as error:
        raise InputError(
            f"the locks that processes share cannot be made: {error.strerror}; "
            "on Linux, /dev/shm must exist, be writable and have 1 MB free, which a container "
            "gets by `docker run --shm-size=64m`"
        ) from None
    try:
        with progress(f"load: {split}", len(numbers), "images") as bar:
            for images, kept, problems in results_of(pool, numbers, processes):
                names = [dataset.names[number] for number in kept]
                bad += [f"{dataset.names[number]}: {reason}" for number, reason in problems]
                bar.update(len(kept) + len(problems))
                yield images, names, [label_of[name.split("/", 2)[1]] for name in names]
    except BrokenProcessPool:
        raise InputError(
            f"one of the {processes} processes that decode images was ended by the system, most "
            "likely for want of memory; free some, or leave very large images out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def results_of(
    pool: ProcessPoolExecutor, numbers: np.ndarray, processes: int
) -> Iterator[tuple[np.ndarray, list[int], list[tuple[int, str]]]]:
    """Yield what `decode_block` returns of each block, in order, with few of them under way.

    `Executor.map` would go on decoding, however long the writing takes.
    """
    waiting: deque[Future] = deque()
    for start in range(0, len(numbers), BLOCK):
        # Ctrl-C is for the one that waits. The executor starts its processes here; they inherit
        # what is blocked, and Python would swallow a KeyboardInterrupt that comes while it forks.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        waiting.append(pool.submit(decode_block, numbers[start : start + BLOCK]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        if len(waiting) == BLOCKS_AHEAD * processes:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def adopt(dataset: Dataset, image_size: int) -> None:
    """Give a process of the pool what it works on; end it with the process that started it."""
    decode_block.dataset, decode_block.image_size = dataset, image_size
    watch = [parent_process().sentinel]
    Thread(target=lambda: connection.wait(watch) and os._exit(1), daemon=True).start()


def decode_block(numbers: np.ndarray) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
    """Decode some images of the process's data set.

    Returns
    -------
    (ndarray of uint8, list of int, list of (int, str))
        The images, which they are, and which others cannot be read, with the reason.
    """
    size = decode_block.image_size
    images, kept, bad = np.empty((len(numbers), size, size), np.uint8), [], []
    for number in numbers.tolist():
        try:
            images[len(kept)] = decode(decode_block.dataset.read(number), size)
            kept.append(number)
        except BadImageError as error:
            bad.append((number, str(error)))
    return images[: len(kept)], kept, bad


def report(bad: list[str], of: int, bad_images: str) -> None:
    """Say which images cannot be read, up to ten of them.

    Raises
    ------
    InputError
        If `bad_images` is ``error`` and there are such images.
    """
    if not bad:
        return
    listed = "\n".join([f"  {line}" for line in bad[:10]] + ["  ..."] * (len(bad) > 10))
    message = f"{len(bad)} of {of} images cannot be read:\n{listed}"
    if bad_images == "error":
        raise InputError(f"{message}\n`bad_images: skip` in params.yaml leaves them out")
    print(f"load: left out: {message}", flush=True)


def seen_in_training(folders: dict[str, Path]) -> int:
    """Count the test images that are also training or validation images, pixel by pixel."""

    def digests(split: str) -> np.ndarray:
        images = read_split(folders[split]).images
        hashes = bytearray()
        for start in range(0, len(images), BLOCK):
            for image in images[start : start + BLOCK]:
                hashes += hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        return np.frombuffer(hashes, np.uint64)

    training = np.concatenate([digests("train"), digests("validation")])
    return int(np.isin(digests("test"), training).sum())


def main() -> None:
    """Run the stage."""
    params = read_params(LoadParams)
    dataset = open_dataset(Path(params.dataset))
    train = labelled(dataset, "train", params.classes)
    test = labelled(dataset, "test", params.classes)
    splits = draw(params, train, test)
    counts: dict[str, int] = {}
    bad: list[str] = []
    with ExitStack() as outputs:
        folders = {split: outputs.enter_context(replacing(PREPARED / split)) for split in splits}
        for split, numbers in splits.items():
            blocks = decoded(dataset, numbers, params, bad)
            longest = max(len(dataset.names[number]) for number in numbers)
            counts[split] = write_split(folders[split], blocks, params.image_size, longest)
            print(f"load: {split}, {counts[split]:,} images", flush=True)
        report(bad, sum(map(len, splits.values())), params.bad_images)
        for split, count in counts.items():
            if not count:
                raise InputError(f"not one of the {split} images can be read")
        seen = seen_in_training(folders)
        if seen:
            print(f"load: warning: {seen} test images are also in train/", flush=True)
        samples = outputs.enter_context(replacing(SAMPLES))
        draw_samples(read_split(folders["train"]), params.classes, SAMPLES_A_CLASS, samples)
        metrics = {f"{split}_images": count for split, count in counts.items()}
        metrics |= {"skipped_images": len(bad), "test_images_seen_in_training": seen}
        write_json(outputs.enter_context(replacing(METRICS)), metrics)


if __name__ == "__main__":
    run("load", main)
