"""Say what images show, with the exported model: `make predict IMAGES=photos`.

    python -m inference.predict [--csv FILE.csv] [--json FILE.json] PATH...

A PATH is an image file, or a folder or zip archive of images. Results are printed as a table: all
rows where another program reads it, the first ones on a terminal. Images pass through in blocks,
so that there may be more of them, and of their results, than fit into memory.
"""

import argparse
import contextlib
import csv
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tqdm import tqdm

from common.console import InputError, progress, run
from common.decoding_pool import DecodedBlock, decode_images, decode_in_processes
from common.outputs import replacing
from common.params import ColorMode
from inference.exported import ExportedModel, open_current
from inference.images import NO_CLASS, SUFFIXES, WANTED, Images
from inference.table import aligned, describe_score, lines_of, printable, width_of

RANKS = ("class", "confidence"), ("second", "second_confidence"), ("third", "third_confidence")
BLOCK = (
    64  # images that are decoded and predicted together; more are no faster and take more memory
)
ALONE = 1.0  # seconds that the processor decodes in this process; then starting others pays
SHOWN = 20  # rows on a terminal
NAME_WIDTH = 60  # columns of a terminal for the name of a file; a longer one shifts its row
PROBLEMS_SHOWN = 10

Row = list[Any]  # the name of the file; then a class and its confidence, for each rank
Write = Callable[[list[Row]], None]


def columns_for(classes: list[str]) -> list[str]:
    """Return the names of the columns: fewer ranks where there are fewer classes."""
    return ["file", *(name for rank in RANKS[: len(classes)] for name in rank)]


def rows_of(names: list[str], probabilities: np.ndarray, classes: list[str]) -> list[Row]:
    """Return a row for each image: its name, and the most probable classes.

    Of equal probabilities the class that comes first in `classes` is first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : len(RANKS)]
    confidences = np.take_along_axis(probabilities, order, axis=1)
    rows = []
    for name, labels, values in zip(names, order.tolist(), confidences.tolist(), strict=True):
        row: Row = [name]
        for label, value in zip(labels, values, strict=True):
            row += [classes[label], value]
        rows.append(row)
    return rows


@contextlib.contextmanager
def csv_writer(path: Path, columns: list[str]) -> Iterator[Write]:
    """Write rows to a CSV file, which is there when all are written."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        # Before Python 3.13 a lone "\r" in a name is quoted only where lines end in "\r\n".
        lines = SimpleNamespace(write=lambda line: file.write(f"{line[:-2]}\n"))
        writer = csv.writer(lines, lineterminator="\r\n")
        writer.writerow(columns)

        def write(rows: list[Row]) -> None:
            for row in rows:
                writer.writerow([f"{v:.6f}" if isinstance(v, float) else v for v in row])

        yield write


@contextlib.contextmanager
def json_writer(path: Path, columns: list[str]) -> Iterator[Write]:
    """Write rows to a JSON file, a list of objects, which is there when all are written."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def write(rows: list[Row]) -> None:
            nonlocal separator
            for row in rows:
                values = [round(v, 6) if isinstance(v, float) else v for v in row]
                item = dict(zip(columns, values, strict=True))
                file.write(separator + json.dumps(item, ensure_ascii=False))
                separator = ",\n"

        yield write
        file.write("\n]\n")


def console_writer(names: list[str], classes: list[str], columns: list[str], most: int) -> Write:
    """Return what prints the first rows as a table, without disturbing a progress bar.

    Parameters
    ----------
    names : list of str
        All names of files; the width of their column follows from those that may be shown.
    classes : list of str
        Names of the classes.
    columns : list of str
        Names of the columns.
    most : int
        How many rows are printed.
    """
    name_width = max(width_of(printable(name)) for name in names[:most])
    class_width = max(width_of(printable(name)) for name in classes)
    smallest = [min(NAME_WIDTH, name_width), *([class_width, 6] * len(RANKS))]
    widths = [max(pair) for pair in zip(map(len, columns), smallest, strict=False)]
    left = most
    tqdm.write(aligned(columns, widths))

    def write(rows: list[Row]) -> None:
        nonlocal left
        if shown := rows[:left]:
            cells = [
                [f"{v:.4f}" if isinstance(v, float) else printable(v) for v in r] for r in shown
            ]
            tqdm.write("\n".join(aligned(row, widths) for row in cells))
            left -= len(shown)

    return write


def decode(images: Images, image_size: int, color_mode: ColorMode) -> Generator[DecodedBlock]:
    """Decode all images, exactly as `load` does, and show the progress.

    Thousands of small images are decoded before other processes would have started.

    Yields
    ------
    DecodedBlock
        At most `BLOCK` images, in their order.
    """
    indices = np.arange(len(images.names))
    spent = 0.0
    with progress("predict", len(indices), "images") as bar:
        while len(indices) and spent < ALONE:
            started = time.thread_time()
            block = decode_images(images, image_size, color_mode, indices[:BLOCK])
            spent += time.thread_time() - started
            yield block
            bar.update(min(BLOCK, len(indices)))
            indices = indices[BLOCK:]
    if len(indices):
        yield from decode_in_processes(
            images, indices, image_size, color_mode, "predict", block=BLOCK
        )


class Totals:
    """What is counted over all images.

    Attributes
    ----------
    predicted : ndarray of int64, shape (classes,)
        How many images were taken for each class.
    matrix : ndarray of int64, shape (classes, classes)
        Of the images whose folder tells the class: the actual class in rows, the predicted one
        in columns.
    unreadable : int
        Number of images that could not be read.
    problems : list of str
        A line for each of the first of them: its name, and why.
    """

    def __init__(self, classes: int) -> None:
        self.predicted = np.zeros(classes, np.int64)
        self.matrix = np.zeros((classes, classes), np.int64)
        self.unreadable = 0
        self.problems: list[str] = []

    def add(self, images: Images, block: DecodedBlock, predicted: np.ndarray) -> None:
        """Count the images of one block, and the labels that were predicted for them."""
        np.add.at(self.predicted, predicted, 1)
        labels = np.array([images.labels[index] for index in block.indices], np.int64)
        known = labels != NO_CLASS
        np.add.at(self.matrix, (labels[known], predicted[known]), 1)
        self.unreadable += len(block.problems)
        for index, reason in block.problems[: PROBLEMS_SHOWN - len(self.problems)]:
            self.problems.append(f"{printable(images.names[index])}: {reason}")


def predict(model: ExportedModel, images: Images, writers: list[Write]) -> Totals:
    """Predict all images, write the rows as they come, and return what was counted."""
    description = model.description
    totals = Totals(len(description.classes))
    with contextlib.closing(
        decode(images, description.image_size, description.color_mode)
    ) as blocks:
        for block in blocks:
            predicted = np.zeros(0, np.int64)
            if block.indices:
                probabilities = model.probabilities_of(block.images)
                predicted = probabilities.argmax(axis=1)
                names = [images.names[index] for index in block.indices]
                rows = rows_of(names, probabilities, description.classes)
                for write in writers:
                    write(rows)
            totals.add(images, block, predicted)
    return totals


def print_summary(totals: Totals, images: Images, classes: list[str], shown: int) -> None:
    """Print what the rows add up to: the score where folders tell the classes, else a count."""
    read, scored = int(totals.predicted.sum()), int(totals.matrix.sum())
    if read > shown:
        print(f"... and {read - shown:,} more; CSV=out.csv or JSON=out.json writes all")
    if scored:
        columns = shutil.get_terminal_size((120, 24)).columns
        print("", *describe_score(totals.matrix, classes, columns), sep="\n")
        if scored < read:
            print(f"\n{read - scored:,} images lie in no folder named like a class: not counted")
        if images.from_training:
            print(
                f"\n{images.from_training:,} of the images lie below train/ or validation/: where "
                "the model was trained on them, this says little of new images"
            )
    elif read > SHOWN:
        order = np.argsort(-totals.predicted, kind="stable")
        counts = [[classes[label], f"{totals.predicted[label]:,}"] for label in order.tolist()]
        print("", *lines_of([["class", "images"], *counts[:SHOWN]]), sep="\n")
        if len(counts) > SHOWN:
            print(f"... and {len(counts) - SHOWN:,} other classes")


def paths_in(value: str) -> list[str]:
    """Return the paths in the value of IMAGES: one, spaces and all, or several, as for a shell.

    Raises
    ------
    InputError
        If there is none, or a quotation mark is not closed.
    """
    if not value.strip():
        raise InputError(f"IMAGES is not set; {WANTED}, as in `make predict IMAGES=photos`")
    if os.path.exists(value):  # noqa: PTH110  Path's fails where many names are too long for one
        return [value]
    try:
        return shlex.split(value)
    except ValueError as error:
        shown = value if len(value) < NAME_WIDTH else f"{value[:NAME_WIDTH]}..."
        raise InputError(f"IMAGES is {shown!r}: {error}; {QUOTED}") from None


QUOTED = "several names are separated by spaces and quoted as for a shell"


def check_paths(names: list[str]) -> None:
    """Refuse paths that do not exist, before anything is exported or predicted."""
    for name in names:
        try:
            os.stat(name)  # noqa: PTH116  it is not a path yet
        except FileNotFoundError:
            hint = f"; {QUOTED}" if len(names) > 1 else ""
            raise InputError(f"{name!r} does not exist; {WANTED}{hint}") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{name!r} cannot be read: {reason}") from None


def output_path(value: str, option: str) -> Path | None:
    """Return where to write a file of results; None where none is wanted.

    The end of its name is checked, lest an image be overwritten that was named by mistake.

    Raises
    ------
    InputError
        If the name ends otherwise, or it is no place for a file.
    """
    if not value:
        return None
    path, suffix = Path(value), f".{option.lower()}"
    if path.suffix.lower() != suffix:
        raise InputError(f"{option} is {value!r}; it must be a file name that ends in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        reason = f"{str(path.parent)!r} is no folder" if not path.is_dir() else "that is a folder"
        raise InputError(f"{option} is {value!r}: {reason}; it must be a file in a folder")
    return path


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="predict", description=__doc__.splitlines()[0])
    parser.add_argument("paths", metavar="PATH", nargs="*", help="an image, a folder, an archive")
    parser.add_argument("--csv", default="", metavar="FILE.csv", help="write all rows as CSV")
    parser.add_argument("--json", default="", metavar="FILE.json", help="write all rows as JSON")
    parser.add_argument("--images", metavar="PATHS", help="paths in one argument, quoted as for sh")
    return parser.parse_args()


def main() -> None:
    """Predict what the user names."""
    arguments = parse_arguments()
    names = arguments.paths
    if arguments.images is not None or not names:
        names = [*names, *paths_in(arguments.images or "")]
    csv_path = output_path(arguments.csv, "CSV")
    json_path = output_path(arguments.json, "JSON")
    check_paths(names)
    model = open_current()
    classes = model.description.classes
    images = Images([Path(name) for name in names], classes)
    if images.left_out:
        first, others = printable(images.left_out[0]), len(images.left_out) - 1
        more = f" and {others:,} more" if others else ""
        suffixes = ", ".join(SUFFIXES)
        print(f"predict: left out, not {suffixes}: {first}{more}", file=sys.stderr)
    columns = columns_for(classes)
    shown = SHOWN if sys.stdout.isatty() else len(images.names)
    with contextlib.ExitStack() as outputs:
        writers = [console_writer(images.names, classes, columns, shown)]
        if csv_path:
            writers.append(outputs.enter_context(csv_writer(csv_path, columns)))
        if json_path:
            writers.append(outputs.enter_context(json_writer(json_path, columns)))
        totals = predict(model, images, writers)
        listed = "\n  ".join(totals.problems)
        more = "\n  ..." if totals.unreadable > len(totals.problems) else ""
        problem = (
            f"{totals.unreadable:,} of {len(images.names):,} images cannot be read:\n  "
            f"{listed}{more}"
        )
        if totals.unreadable == len(images.names):
            raise InputError(problem)
    print_summary(totals, images, classes, shown)
    if totals.unreadable:
        sys.stdout.flush()
        raise InputError(problem)


if __name__ == "__main__":
    run("predict", main)
