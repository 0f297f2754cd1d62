"""Every picture that the project draws, as PNG files of the same bytes for the same data.

Names of classes are drawn as they are, never as mathematics. However many classes there are, a
picture's size and the memory that it takes stay bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from common.lettering import Lettering, lettering
from common.splits import Split

if TYPE_CHECKING:
    import pandas as pd  # half a second that `load` has no use for

DPI = 100
SAMPLED = 40  # classes whose samples are drawn
SAMPLE_PIXELS = 64  # of a sample's side, which is drawn 55 pixels long: more are reduced
ANNOTATED = 30  # classes up to which each cell of a confusion matrix holds its number
CELLS = 250  # rows and columns of a confusion matrix without numbers
TICKS = 100  # names along a side of it
CONFUSIONS = 25  # the most frequent ones, listed beside it

# Matplotlib has read the matplotlibrc of the user, or of the folder.
mpl.rcdefaults()


def draw_samples(split: Split, classes: list[str], columns: int, path: Path) -> None:
    """Draw examples of each class: a row a class, its name at the left.

    Of more than `SAMPLED` classes every second is shown, or every third, and so on.

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
    step = -(-len(classes) // SAMPLED)
    shown = range(0, len(classes), step)
    factor = max(1, split.images.shape[1] // SAMPLE_PIXELS)
    height, width = (-(-side // factor) for side in split.images.shape[1:3])
    channels = split.images.shape[3]
    sheet = np.zeros((len(shown) * height, columns * width, channels), np.uint8)
    for row, label in enumerate(shown):
        for column, index in enumerate(np.flatnonzero(split.labels == label)[:columns]):
            cell = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
            reduced = np.asarray(Image.fromarray(drawable(split.images[index])).reduce(factor))
            sheet[cell] = reduced.reshape(height, width, channels)
    title = "Training images by label"
    if step > 1:
        title += f": {len(shown)} of the {len(classes):,} classes, one in {step}"
    names, fonts, wider = lettering(classes)
    size = 0.55 * columns + 0.6 + 1.65 * wider, 0.55 * len(shown) + 0.5
    with picture(path, size, fonts, layout="constrained") as figure:
        axes = figure.subplots()
        axes.set_anchor("E" if wider else "C")  # leaves the names the room at the left
        axes.imshow(drawable(sheet), cmap="gray", vmin=0, vmax=255)
        axes.set(title=title, xticks=[])
        axes.set_yticks((np.arange(len(shown)) + 0.5) * height - 0.5, names[::step], fontsize=14)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)


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
    with picture(path, (6.4, 4.4), layout="constrained") as figure:
        axes = figure.subplots()
        for split, marker in (("train", "o"), ("validation", "s")):
            axes.plot(
                training["epoch"],
                training[f"{split}_{quantity}"],
                marker=marker if len(training) <= 50 else None,
                label=f"{split.capitalize()} {quantity}",
            )
        title = f"Model {quantity.capitalize()}"
        axes.set(title=title, xlabel="Epochs", ylabel=quantity.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.grid(alpha=0.3)
        axes.legend()


def draw_confusion_matrix(matrix: np.ndarray, classes: list[str], path: Path) -> None:
    """Draw a confusion matrix as a heatmap.

    Up to `ANNOTATED` classes each cell holds its number. Of more classes the colours say how
    many images there are, and the most frequent confusions are listed beside them.

    Parameters
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        Number of images by actual (row) and predicted (column) class.
    classes : list of str
        Names of the classes, by label.
    path : Path
        The PNG file to write.
    """
    draw = draw_annotated_matrix if len(classes) <= ANNOTATED else draw_large_matrix
    draw(matrix, lettering(classes), path)


def draw_annotated_matrix(matrix: np.ndarray, classes: Lettering, path: Path) -> None:
    """Draw a confusion matrix with a number in each cell; see `draw_confusion_matrix`."""
    import seaborn as sns  # nobody else needs it, and it takes a second to import

    names, fonts, wider = classes
    side = max(4.0, 0.62 * len(names))
    upright = wider > 0.45  # names along the bottom, which would overlap
    size = side + 1.8 + wider, side + wider * upright
    with picture(path, size, fonts, layout="constrained") as figure:
        # seaborn draws the unfinished figure, to see whether names overlap: it is to be laid
        # out when it is finished.
        figure.set_layout_engine("none")
        axes = figure.subplots()
        sns.heatmap(
            matrix, annot=True, fmt="d", cmap="Blues", xticklabels=names, yticklabels=names, ax=axes
        )
        axes.set(title="Confusion Matrix", xlabel="Predicted", ylabel="Actual")
        axes.tick_params(axis="x", rotation=90 if upright else 0)
        axes.tick_params(axis="y", rotation=0)
        figure.set_layout_engine("constrained")


def draw_large_matrix(matrix: np.ndarray, classes: Lettering, path: Path) -> None:
    """Draw a confusion matrix of many classes in colours; see `draw_confusion_matrix`."""
    names, fonts, _ = classes
    count = len(names)
    block = -(-count // CELLS)  # classes that share a cell
    edges = np.arange(0, count, block)
    sums = np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1)
    ticks = np.arange(0, count, -(-count // TICKS))
    labels = [names[tick] for tick in ticks]
    small = {"fontsize": min(9, 700 / len(ticks))}

    confusions = np.where(np.eye(count, dtype=bool), 0, matrix).ravel()
    confused_pairs = np.count_nonzero(confusions)
    order = np.argsort(-confusions, kind="stable")[: min(confused_pairs, CONFUSIONS)]
    pairs = [f"{names[cell // count]} → {names[cell % count]}" for cell in order]

    with picture(path, (21, 13.5), fonts, layout="constrained") as figure:
        figure.suptitle(f"Confusion Matrix of {count:,} classes", fontsize=16)
        axes, bar_axes = figure.subplots(1, 2, width_ratios=(13, 3.5))
        # Empty cells are white, and a single image is already well visible.
        blues = LinearSegmentedColormap.from_list("", mpl.colormaps["Blues"]([0.35, 0.7, 1.0]))
        drawn = axes.imshow(
            np.ma.masked_equal(sums, 0),
            cmap=blues,
            norm=LogNorm(1, max(2, sums.max())),
            extent=(0, len(edges) * block, len(edges) * block, 0),
            interpolation="nearest",
        )
        title = f"a cell adds up {block} x {block} classes" if block > 1 else ""
        axes.set(title=title, xlabel="Predicted", ylabel="Actual", xlim=(0, count), ylim=(count, 0))
        axes.set_xticks(ticks + 0.5, labels, rotation=90, **small)
        axes.set_yticks(ticks + 0.5, labels, **small)
        figure.colorbar(
            drawn,
            label="Number of images",
            shrink=0.6,
            pad=0.01,
            ticks=LogLocator(subs=(1, 2, 5)),
            format="{x:,.0f}",
        )
        bars = bar_axes.barh(range(len(order)), confusions[order], color=blues(0.4))
        bar_axes.bar_label(bars, padding=3)
        title = f"The {len(order)} most frequent of {confused_pairs:,} confusions"
        title += "\nactual → predicted, number of images"
        bar_axes.set_title(title if confused_pairs else "No image is misclassified", loc="right")
        bar_axes.set_yticks(range(len(order)), pairs)
        bar_axes.set(xticks=[], ylim=(CONFUSIONS - 0.5, -0.5))
        bar_axes.margins(x=0.15)
        bar_axes.tick_params(length=0)
        bar_axes.spines[["top", "right", "bottom"]].set_visible(False)


def draw_misclassified(
    images: np.ndarray, mistakes: pd.DataFrame, classes: list[str], title: str, path: Path
) -> None:
    """Draw misclassified images, each with what was predicted, what it is, how confidently.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, 1 or 3)
        The images to draw, in order.
    mistakes : DataFrame
        Their ``actual``, ``predicted`` and ``confidence``, from 0 to 1.
    classes : list of str
        Names of the classes, by label.
    title : str
        What they are, above them.
    path : Path
        The PNG file to write.
    """
    names, fonts, wider = lettering(classes)
    drawn = dict(zip(classes, names, strict=True))
    columns = 6
    rows = max(1, -(-len(images) // columns))
    width = max(1.5, 1.3 + 0.9 * wider)  # inches of a column, of which an image takes 1.5
    half = 0.46 * 1.5 / width
    with picture(path, (width * columns, 1.95 * rows + 0.5), fonts) as figure:
        axes = figure.add_axes((0.01, 0, 0.98, 1 - 0.5 / figure.get_figheight()))
        axes.set_axis_off()
        for index, (image, mistake) in enumerate(zip(images, mistakes.itertuples(), strict=True)):
            left, top = index % columns, index // columns * 1.3
            middle = left + 0.5
            extent = (middle - half, middle + half, top + 1.26, top + 0.34)
            pixels = drawable(image)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
            caption = (
                f"predicted {drawn[mistake.predicted]} ({mistake.confidence:.0%})\n"
                f"actual {drawn[mistake.actual]}"
            )
            axes.text(middle, top + 0.3, caption, ha="center", va="bottom", fontsize=9)
        axes.set(xlim=(0, columns), ylim=(1.3 * rows, 0))  # a picture is 1 high, its lines 0.3
        figure.suptitle(title)


def drawable(image: np.ndarray) -> np.ndarray:
    """Return an image, (H, W, 1 or 3), as Matplotlib and Pillow take it: a grey one is (H, W)."""
    return image[:, :, 0] if image.shape[2] == 1 else image


@contextmanager
def picture(
    path: Path,
    size: tuple[float, float],
    fonts: list[str] | None = None,
    layout: Literal["constrained"] | None = None,
) -> Iterator[Figure]:
    """Give a figure to draw on and write it as a PNG file in the end.

    Parameters
    ----------
    path : Path
        The PNG file to write.
    size : tuple of float
        Width and height in inches.
    fonts : list of str, optional
        Families to take letters from that Matplotlib's own font lacks, from `lettering`.
    layout : str, optional
        Name of Matplotlib's layout engine.
    """
    family = [*mpl.rcParams["font.family"], *(fonts or [])]
    with mpl.rc_context({"font.family": family, "text.parse_math": False}):
        figure = Figure(figsize=size, layout=layout)
        FigureCanvasAgg(figure)  # without it, each text that is measured takes a canvas of its own
        yield figure
        figure.savefig(path, format="png", dpi=DPI)
