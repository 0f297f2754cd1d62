"""What people would rather look at than read: curves, charts, the images themselves."""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from common.console import InputError
from common.splits import Split, read_split
from review.revision import Revision, read_dvc_json

PREPARED = Path("data/prepared")
BINS = 15  # as in `evaluate`
PICTURES = 24  # of images newly right, and of images newly wrong
CLASSES = 100  # up to which a chart of classes is drawn: a browser stands still over a thousand


@dataclass(frozen=True)
class Picture:
    """An image of the test set that one of the two revisions gets right and the other wrong.

    Attributes
    ----------
    png : str
        The pixels as a data URI, or "" if the prepared data is not here.
    image : str
        Its name.
    actual, before, after : str
        Its class, and the classes that were predicted.
    """

    png: str
    image: str
    actual: str
    before: str
    after: str


@dataclass(frozen=True)
class Disagreement:
    """The images newly right, or the images newly wrong.

    Attributes
    ----------
    title : str
        Which of the two.
    total : int
        Number of these images.
    pictures : list of Picture
        The most confident ones, at most `PICTURES`.
    """

    title: str
    total: int
    pictures: list[Picture]


@dataclass(frozen=True)
class Chart:
    """One of DVC's interactive plots.

    Attributes
    ----------
    title : str
        What it shows.
    classes : int
        Number of names on its longest axis.
    specification : dict or None
        What Vega-Lite draws; None if the names are more than `CLASSES`.
    is_wide : bool
        Whether it takes the whole width of the page.
    """

    title: str
    classes: int
    specification: dict[str, Any] | None
    is_wide: bool


@dataclass(frozen=True)
class Curve:
    """A column of plots/training.csv, a value for each epoch."""

    name: str
    before: list[float]
    after: list[float]

    @property
    def rows(self) -> list[tuple[float | str, float | str]]:
        """The values of both revisions at each epoch; "" after the end of a run."""
        return list(zip_longest(self.before, self.after, fillvalue=""))

    @property
    def level(self) -> tuple[list[float], list[float]]:
        """The values of both revisions, where a run that ended earlier goes on level.

        Mermaid draws lines of one length.
        """
        epochs = len(self.rows)
        before = self.before + self.before[-1:] * (epochs - len(self.before))
        after = self.after + self.after[-1:] * (epochs - len(self.after))
        return before, after

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.before + self.after)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.before + self.after)


@dataclass(frozen=True)
class BinAccuracy:
    """The accuracy of the images in a bin of confidence."""

    accuracy: float
    images: int


@dataclass(frozen=True)
class CalibrationBin:
    """A bin of confidence and what the two revisions have in it, if they have any image there."""

    low: float
    high: float
    before: BinAccuracy | None
    after: BinAccuracy | None


def disagreements(matched: pd.DataFrame) -> tuple[list[Disagreement], str]:
    """Return the images newly right and newly wrong.

    Parameters
    ----------
    matched : DataFrame
        From `review.significance.same_images`.

    Returns
    -------
    disagreements : list of Disagreement
        Newly right, newly wrong.
    no_pixels : str
        Why the images have no pixels, or "".
    """
    right_before = matched["predicted_before"] == matched["actual"]
    right_after = matched["predicted_after"] == matched["actual"]
    newly_right = matched[right_after & ~right_before]
    newly_wrong = matched[right_before & ~right_after]
    split, no_pixels = prepared_images([*newly_right["image"], *newly_wrong["image"]])
    return [
        Disagreement("Newly right", len(newly_right), pictures(newly_right, split)),
        Disagreement("Newly wrong", len(newly_wrong), pictures(newly_wrong, split)),
    ], no_pixels


def prepared_images(names: Sequence[str]) -> tuple[Split | None, str]:
    """Return the prepared images that include all of these names, or None and why there are none.

    They are test images, or validation images where these were scored.
    """
    try:
        for folder in ("test", "validation"):
            split = read_split(PREPARED / folder)
            if set(names) <= set(split.names):
                return split, ""
    except InputError:
        return None, f"{PREPARED} is not whole: `dvc pull` or `dvc repro` bring the pictures"
    return None, f"{PREPARED} holds other images: `dvc checkout` brings the pictures"


def pictures(rows: pd.DataFrame, split: Split | None) -> list[Picture]:
    """Return the pictures of the rows in which the later model was most confident.

    Parameters
    ----------
    rows : DataFrame
        From `disagreements`.
    split : Split or None
        Where the pixels are.
    """
    confidence = pd.to_numeric(rows["confidence_after"], errors="coerce")
    order = confidence.sort_values(ascending=False, kind="stable").index[:PICTURES]
    index_of = {} if split is None else {name: index for index, name in enumerate(split.names)}
    return [
        Picture(
            png="" if split is None else png(split.images[index_of[row.image]]),
            image=row.image,
            actual=row.actual,
            before=row.predicted_before,
            after=row.predicted_after,
        )
        for row in rows.loc[order].itertuples()
    ]


def png(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8 (H, W, 1 or 3), as a data URI."""
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[2] == 1 else image  # Pillow has no third axis for grey
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def charts(folder: Path) -> list[Chart]:
    """Return DVC's interactive plots of the two tags of a clone."""
    # Into this folder dvc writes the PNG files that it compares too.
    options = ("-o", str(folder / "static"))
    plots = read_dvc_json(folder, "plots", "diff", "before", "after", *options).get("data", {})
    return [
        chart(name, entry["content"])
        for name, entries in plots.items()
        for entry in entries
        if entry["type"] == "vega"
    ]


def chart(name: str, content: str | dict[str, Any]) -> Chart:
    """Return one of DVC's plots for the page.

    Of the rows behind the plot only the columns that it shows are kept: the predictions of
    10,000 images are megabytes otherwise.

    Parameters
    ----------
    name : str
        What DVC calls the plot.
    content : str or dict
        A Vega-Lite specification.
    """
    specification = json.loads(content) if isinstance(content, str) else content
    rows = specification.get("data", {}).pop("values", [])
    text = json.dumps(specification)
    columns = [column for row in rows[:1] for column in row if json.dumps(column) in text]
    fields = named_fields(specification)
    classes = max((len({row.get(field) for row in rows}) for field in fields), default=0)
    specification["data"] = {
        "values": [{column: row[column] for column in columns if column in row} for row in rows]
    }
    specification.pop("$schema", None)  # the Vega of the page is newer
    title = specification.pop("title", None)
    if isinstance(title, dict):
        title = title.get("text", name)
    is_drawn = classes <= CLASSES
    return Chart(
        title=title or name,
        classes=classes,
        specification=specification if is_drawn else None,
        is_wide="facet" in specification and is_drawn,
    )


def named_fields(specification: object) -> set[str]:
    """Return the fields that a Vega-Lite specification shows as names, not as numbers.

    Examples
    --------
    >>> x, y = {"field": "recall", "type": "quantitative"}, {"field": "class", "type": "nominal"}
    >>> named_fields({"layer": [{"encoding": {"x": x, "y": y}}]})
    {'class'}
    """
    if isinstance(specification, list):
        return set().union(*map(named_fields, specification))
    if not isinstance(specification, dict):
        return set()
    fields = set().union(*map(named_fields, specification.values()))
    if specification.get("type") == "nominal" and "field" in specification:
        fields.add(specification["field"])
    return fields


def curve(before: Revision, after: Revision, name: str) -> Curve | None:
    """Return the validation loss or accuracy of both revisions, or None if one lacks a number.

    Parameters
    ----------
    before, after : Revision
        The two sides.
    name : str
        "loss" or "accuracy".
    """
    column = f"validation_{name}"
    sides = []
    for revision in (before, after):
        table = revision.table("plots/training.csv", ["epoch", column])
        if table is None or table.empty:
            return None
        sides.append(pd.to_numeric(table[column], errors="coerce").round(4).tolist())
    if not all(math.isfinite(value) for side in sides for value in side):
        return None
    return Curve(name, *sides)


def calibration(before: Revision, after: Revision) -> list[CalibrationBin]:
    """Return accuracy against confidence of both revisions, for each bin that holds images."""
    bins_before, bins_after = bin_accuracies(before), bin_accuracies(after)
    return [
        CalibrationBin(
            low=number / BINS,
            high=(number + 1) / BINS,
            before=bins_before.get(number),
            after=bins_after.get(number),
        )
        for number in sorted(bins_before.keys() | bins_after.keys())
    ]


def bin_accuracies(revision: Revision) -> dict[int, BinAccuracy]:
    """Return what plots/calibration.csv holds, by the number of the bin from 0 on."""
    table = revision.table("plots/calibration.csv", ["confidence", "accuracy", "images"])
    if table is None:
        return {}
    table = table.apply(pd.to_numeric, errors="coerce")
    table = table[np.isfinite(table).all(axis=1)]
    # The upper bound of a bin belongs to it, as in `evaluate`.
    return {
        max(0, math.ceil(row.confidence * BINS) - 1): BinAccuracy(row.accuracy, int(row.images))
        for row in table.itertuples()
    }
