"""Tables on a console, aligned whatever names hold, and the score of a classifier as text."""

import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

GAP = "  "  # between columns
CONFUSIONS = 25  # the most frequent ones, as beside the picture of a large confusion matrix
Z = 1.959963984540054  # of a standard normal distribution, 95% lies between -Z and Z


def printable(text: str) -> str:
    r"""Return a text of one line, with what does not print, or turns text around, as an escape.

    Examples
    --------
    >>> printable("a\tb\x1b[31m")
    'a\\tb\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes.

    Examples
    --------
    >>> width_of("7"), width_of("七"), width_of("e" + "\N{COMBINING ACUTE ACCENT}")
    (1, 2, 1)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    """Return printable cells as a line, each filled up to its width; a longer one is not cut."""
    padded = (
        cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    return GAP.join(padded).rstrip()


def lines_of(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a whole table; its first row is the head."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return [aligned(row, widths) for row in rows]


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of an accuracy [1]_, as scipy does, which takes long to import.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", JASA 22, 1927.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson_interval(3, 4)]
    [0.3006, 0.9544]
    """
    accuracy = correct / images
    centre = accuracy + Z**2 / (2 * images)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2))
    scale = 1 + Z**2 / images
    # Rounding would put the interval of no error a little above 1.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def describe_score(matrix: np.ndarray, classes: list[str], columns: int) -> list[str]:
    """Return the accuracy and the confusions as lines.

    Parameters
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        Number of images of each class, in rows, that were taken for each class, in columns.
    classes : list of str
        Names of the classes, by label.
    columns : int
        Width of the console. Where the matrix is wider, the most frequent confusions are listed
        in its place.
    """
    images, correct = int(matrix.sum()), int(matrix.trace())
    low, high = wilson_interval(correct, images)
    head = (
        f"Accuracy {correct / images:.4f} (95% interval {low:.4f} to {high:.4f}), "
        f"{images - correct:,} errors in {images:,} images"
    )
    rows = [["actual", *classes]]
    rows += [[name, *map(str, row)] for name, row in zip(classes, matrix.tolist(), strict=True)]
    table = lines_of(rows)
    if max(map(width_of, table)) <= columns:
        return [
            head,
            "",
            "Confusion matrix: a row an actual class, a column a predicted one",
            *table,
        ]
    errors = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
    order = np.argsort(-errors, axis=None, kind="stable")[
        : min(CONFUSIONS, np.count_nonzero(errors))
    ]
    if not len(order):
        return [head]
    rows = [["actual", "predicted", "images"]]
    for actual, predicted in zip(*np.unravel_index(order, errors.shape), strict=True):
        rows.append([classes[actual], classes[predicted], str(errors[actual, predicted])])
    return [head, "", "The most frequent confusions", *lines_of(rows)]
