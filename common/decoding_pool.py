"""Decode the images of a data set in blocks, a process on each processor.

Processes and not threads: a small image is decoded faster than threads take turns. They start as
is usual on the system: on Linux by a fork, which is ready at once; on macOS, whose libraries may
crash in a fork, as new Pythons that are sent the data set.
"""

import os
import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, parent_process
from threading import Thread
from typing import NamedTuple

import numpy as np

from common.console import InputError, deferring_interrupts, progress
from common.datasets import Dataset
from common.decoding import BadImageError, decode
from common.params import CHANNELS, ColorMode
from common.processors import usable_processors

BLOCK = 1000  # images that are decoded before they are written
BLOCKS_AHEAD = 3  # for each process: one that it decodes, others that wait


class DecodedBlock(NamedTuple):
    """Some images of a data set.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, image_size, image_size, channels)
        Those that could be decoded.
    indices : list of int
        Which they are, as indices of ``dataset.names``.
    problems : list of (int, str)
        Those that could not be decoded, each with the reason.
    lost_colour : int
        Number of images that are stored in colour and became grey.
    """

    images: np.ndarray
    indices: list[int]
    problems: list[tuple[int, str]]
    lost_colour: int


def decode_in_processes(
    dataset: Dataset,
    indices: np.ndarray,
    image_size: int,
    color_mode: ColorMode,
    title: str,
    block: int = BLOCK,
) -> Generator[DecodedBlock]:
    """Decode images and show the progress.

    Parameters
    ----------
    dataset : Dataset
        Where the images are.
    indices : ndarray of int64
        Which of them, as indices of ``dataset.names``.
    image_size : int
        Height and width wanted, in pixels.
    color_mode : str
        ``grayscale`` or ``rgb``.
    title : str
        What is going on, for the progress bar.
    block : int, default `BLOCK`
        Number of images that a process decodes at a time.

    Yields
    ------
    DecodedBlock
        At most `block` images, in the order of `indices`.

    Raises
    ------
    InputError
        If the system has no room for the locks that the processes share, or ends a process.
    """
    processes = usable_processors()
    try:
        pool = ProcessPoolExecutor(
            processes, initializer=start_worker, initargs=(dataset, image_size, color_mode)
        )
    except OSError as error:
        raise InputError(
            f"the locks that processes share cannot be made: {error.strerror}; "
            "on Linux, /dev/shm must exist, be writable and have 1 MB free, which a container "
            "gets by `docker run --shm-size=64m`"
        ) from None
    try:
        with progress(title, len(indices), "images") as bar:
            for decoded in blocks_of(pool, indices, processes, block):
                bar.update(len(decoded.indices) + len(decoded.problems))
                yield decoded
    except BrokenProcessPool:
        raise InputError(
            f"one of the {processes} processes that decode images was ended by the system, most "
            "likely for want of memory; free some, or leave very large images out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def blocks_of(
    pool: ProcessPoolExecutor, indices: np.ndarray, processes: int, block: int
) -> Iterator[DecodedBlock]:
    """Yield the blocks in their order, with few of them under way.

    `Executor.map` would go on decoding, however long the writing takes.
    """
    waiting: deque[Future[DecodedBlock]] = deque()
    for start in range(0, len(indices), block):
        with deferring_interrupts():  # a pool that is interrupted while it starts would hang
            # The processes inherit that Ctrl-C, which is for the one that waits, is kept from them.
            kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            waiting.append(pool.submit(decode_block, indices[start : start + block]))
            signal.pthread_sigmask(signal.SIG_SETMASK, kept)
        if len(waiting) == BLOCKS_AHEAD * processes:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Work(NamedTuple):
    """What a process of the pool works on."""

    dataset: Dataset
    image_size: int
    color_mode: ColorMode


work: Work  # in the processes of the pool alone; `start_worker` sets it


def start_worker(dataset: Dataset, image_size: int, color_mode: ColorMode) -> None:
    """Tell a process of the pool what it works on; end it with the process that started it."""
    global work
    work = Work(dataset, image_size, color_mode)
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait until the process that started this one has ended, then end this one."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def decode_block(indices: np.ndarray) -> DecodedBlock:
    """Decode some images of the data set that this process works on."""
    return decode_images(*work, indices)


def decode_images(
    dataset: Dataset, image_size: int, color_mode: ColorMode, indices: np.ndarray
) -> DecodedBlock:
    """Decode some images in this process; see `decode_in_processes`."""
    images = np.empty((len(indices), image_size, image_size, CHANNELS[color_mode]), np.uint8)
    decoded: list[int] = []
    problems: list[tuple[int, str]] = []
    lost_colour = 0
    for index in indices.tolist():
        try:
            image = decode(dataset.read(index), image_size, color_mode)
            images[len(decoded)] = image.pixels
            decoded.append(index)
            lost_colour += image.lost_colour
        except BadImageError as error:
            problems.append((index, str(error)))
    return DecodedBlock(images[: len(decoded)], decoded, problems, lost_colour)
