"""What people would rather look at: curves, charts, the images themselves."""

import base64
import io
import json
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from review.revision import Revision, dvc
from stages.arrays import read_split
from stages.console import InputError

PREPARED = Path("data/prepared/test")
BINS = 15  # as in `evaluate`
PICTURES = 24  # of images newly right, and of images newly wrong
NAMES = 100  # up to which a chart of classes is drawn: a browser stands still over a thousand


@dataclass(frozen=True)
class Picture:
    """An image of the test set, on whose class the revisions disagree."""

    png: str
    image: str
    actual: str
    before: str
    after: str


def disagreements(matched: pd.DataFrame) -> tuple[list[Picture], list[Picture], str]:
    """Return the images newly right and newly wrong, the most confident first.

    Returns
    -------
    right, wrong : list of Picture
        `PICTURES` of each, at most; without pixels if the prepared data is not here.
    missing : str
        Why there are no pixels, or "".
    """
    was = matched["predicted_before"] == matched["actual"]
    is_now = matched["predicted_after"] == matched["actual"]
    missing, rows, images = "", {}, None
    try:
        split = read_split(PREPARED)
        rows, images = {name: row for row, name in enumerate(split.names)}, split.images
    except InputError:
        missing = f"{PREPARED} is not here: `dvc pull` or `dvc repro` bring the pictures"
    chosen = [matched[is_now & ~was], matched[was & ~is_now]]
    if images is not None and not all(n in rows for side in chosen for n in side["image"]):
        missing = f"{PREPARED} holds another test set: `dvc checkout` brings the pictures"
        images = None

    def of(side: pd.DataFrame) -> list[Picture]:
        confidence = pd.to_numeric(side["confidence_after"], errors="coerce")
        order = confidence.sort_values(ascending=False, kind="stable").index[:PICTURES]
        return [
            Picture(
                "" if images is None else png(images[rows[r.image], :, :, 0]),
                r.image,
                r.actual,
                r.predicted_before,
                r.predicted_after,
            )
            for r in side.loc[order].itertuples()
        ]

    return of(chosen[0]), of(chosen[1]), missing


def png(image: np.ndarray) -> str:
    """Return a grey image, uint8 (H, W), as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def charts(folder: Path) -> list[dict]:
    """Return DVC's interactive plots of both revisions: title, Vega-Lite specification.

    Of the rows behind a plot only the columns that it shows are kept: the predictions of
    10,000 images are megabytes otherwise. A plot of more than `NAMES` classes has no
    specification.
    """
    with_pictures = folder / "static"  # dvc writes the PNG files that it compares too
    printed = dvc(folder, "plots", "diff", "before", "after", "--json", "-o", str(with_pictures))
    found = []
    for name, entries in json.loads(printed or "{}").get("data", {}).items():
        for entry in entries:
            if entry["type"] != "vega":
                continue
            content = entry["content"]
            spec = json.loads(content) if isinstance(content, str) else content
            values = spec.get("data", {}).pop("values", [])
            text = json.dumps(spec)
            names = max((len({row.get(key) for row in values}) for key in named(spec)), default=0)
            shown = {key for row in values[:1] for key in row if json.dumps(key) in text}
            spec["data"] = {"values": [{k: row[k] for k in shown if k in row} for row in values]}
            spec.pop("$schema", None)  # the Vega of the page is newer
            title = spec.pop("title", None)
            title = title.get("text", name) if isinstance(title, dict) else title or name
            wide = "facet" in spec and names <= NAMES
            drawn = spec if names <= NAMES else None
            found.append({"title": title, "wide": wide, "names": names, "spec": drawn})
    return found


def named(spec: object) -> set[str]:
    """Return the fields that a Vega-Lite specification shows as names, not as numbers."""
    if isinstance(spec, list):
        return set().union(*map(named, spec))
    if not isinstance(spec, dict):
        return set()
    own = {spec["field"]} if spec.get("type") == "nominal" and "field" in spec else set()
    return own.union(*map(named, spec.values()))


def curves(before: Revision, after: Revision, column: str) -> dict | None:
    """Return a column of plots/training.csv of both revisions, for a picture."""
    sides = [side.table("plots/training.csv", ["epoch", column]) for side in (before, after)]
    if any(side is None or side.empty for side in sides):
        return None
    values = [pd.to_numeric(side[column], errors="coerce").round(4).tolist() for side in sides]
    flat = [v for side in values for v in side]
    if not np.isfinite(flat).all():
        return None
    # A chart in Mermaid takes lines of one length: a run that ended earlier goes on level.
    longest = max(map(len, values))
    level = [side + side[-1:] * (longest - len(side)) for side in values]
    return {
        "before": level[0],
        "after": level[1],
        "rows": list(zip_longest(*values, fillvalue="")),
        "low": min(flat),
        "high": max(flat),
    }


def calibration(before: Revision, after: Revision) -> list[dict]:
    """Return accuracy against confidence of both revisions: a row a bin that holds images.

    Returns
    -------
    list of dict
        ``low`` and ``high`` of the bin's confidence, and for ``before`` and ``after`` the
        ``accuracy`` and number of ``images``, or None.
    """
    rows: dict[int, dict] = {}
    for name, side in (("before", before), ("after", after)):
        table = side.table("plots/calibration.csv", ["confidence", "accuracy", "images"])
        if table is None:
            continue
        table = table.apply(pd.to_numeric, errors="coerce")
        table = table[np.isfinite(table).all(axis=1)]
        for row in table.itertuples():
            # `evaluate` closes its bins at the right.
            number = max(0, int(np.ceil(row.confidence * BINS)) - 1)
            bounds = {"low": number / BINS, "high": (number + 1) / BINS}
            cell = {"accuracy": row.accuracy, "images": int(row.images)}
            rows.setdefault(number, bounds | {"before": None, "after": None})[name] = cell
    return [rows[number] for number in sorted(rows)]
