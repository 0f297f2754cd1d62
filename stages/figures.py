"""Every picture that the project draws, as PNG files of the same bytes for the same data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from stages.arrays import Split

if TYPE_CHECKING:
    import pandas as pd  # half a second that `load` has no use for

DPI = 100


def draw_samples(split: Split, classes: list[str], columns: int, path: Path) -> None:
    """Draw examples of each class: a row a class, its name at the left.

    Parameters
    ----------
    split : Split
        Where to take the first `columns` images of each class from.
    classes : list of str
        Names of the classes, by label.
    columns : int
        Examples a class, at most.
    path : Path
        The PNG file to write.
    """
    height, width = split.images.shape[1:3]
    sheet = np.zeros((len(classes) * height, columns * width), np.uint8)
    for label in range(len(classes)):
        for column, index in enumerate(np.flatnonzero(split.labels == label)[:columns]):
            cell = np.s_[label * height :, column * width :]
            sheet[cell][:height, :width] = split.images[index, :, :, 0]
    figure = Figure(figsize=(0.55 * columns + 0.6, 0.55 * len(classes) + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set(title="Training images by label", xticks=[])
    axes.set_yticks((np.arange(len(classes)) + 0.5) * height - 0.5, classes, fontsize=14)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(path, format="png", dpi=DPI)


def draw_curves(training: pd.DataFrame, quantity: str, path: Path) -> None:
    """Draw a quantity of the training and the validation images against the epochs.

    Parameters
    ----------
    training : DataFrame
        Columns ``epoch``, ``train_<quantity>`` and ``validation_<quantity>``; a row an epoch.
    quantity : str
        ``loss`` or ``accuracy``.
    path : Path
        The PNG file to write.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for split, marker in (("train", "o"), ("validation", "s")):
        axes.plot(
            training["epoch"],
            training[f"{split}_{quantity}"],
            marker=marker if len(training) <= 50 else None,
            label=f"{split.capitalize()} {quantity}",
        )
    axes.set(title=f"Model {quantity.capitalize()}", xlabel="Epochs", ylabel=quantity.capitalize())
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=DPI)


def draw_confusion_matrix(matrix: np.ndarray, classes: list[str], path: Path) -> None:
    """Draw a confusion matrix as an annotated heatmap.

    Parameters
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        Number of images by actual (row) and predicted (column) class.
    classes : list of str
        Names of the classes, by label.
    path : Path
        The PNG file to write.
    """
    import seaborn as sns  # nobody else needs it, and it takes a second to import

    side = max(4.0, 0.62 * len(classes))
    figure = Figure(figsize=(side + 1.8, side), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        matrix, annot=True, fmt="d", cmap="Blues", xticklabels=classes, yticklabels=classes, ax=axes
    )
    axes.set(title="Confusion Matrix", xlabel="Predicted", ylabel="Actual")
    axes.tick_params(axis="y", rotation=0)
    figure.savefig(path, format="png", dpi=DPI)


def draw_misclassified(images: np.ndarray, mistakes: pd.DataFrame, title: str, path: Path) -> None:
    """Draw misclassified images, each with what was predicted, what it is, how confidently.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W)
        The images to draw, in order.
    mistakes : DataFrame
        Their ``actual``, ``predicted`` and ``confidence``, from 0 to 1.
    title : str
        What they are, above them.
    path : Path
        The PNG file to write.
    """
    columns = 6
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(1.5 * columns, 1.95 * rows + 0.5))
    axes = figure.add_axes((0.01, 0, 0.98, 1 - 0.5 / figure.get_figheight()))
    axes.set_axis_off()
    for index, (image, mistake) in enumerate(zip(images, mistakes.itertuples(), strict=True)):
        left, top = index % columns, index // columns * 1.3
        extent = (left + 0.04, left + 0.96, top + 1.26, top + 0.34)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
        words = f"predicted {mistake.predicted} ({mistake.confidence:.0%})\nactual {mistake.actual}"
        axes.text(left + 0.5, top + 0.3, words, ha="center", va="bottom", fontsize=9)
    axes.set(xlim=(0, columns), ylim=(1.3 * rows, 0))  # a picture is 1 high, its lines 0.3
    figure.suptitle(title)
    figure.savefig(path, format="png", dpi=DPI)
