"""What a revision says of its own result, and where that contradicts itself.

Nothing is run for it: what follows from the predictions or the curves that are committed beside
it, is computed anew.
"""

from collections.abc import Iterator
from typing import TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from common.console import InputError
from common.params import PARAMS
from common.scores import BINS, LEAST, calibration_of, score_classes
from review.packages import PACKAGES
from review.predictions import PREDICTIONS_FILE
from review.revision import PROVENANCE, THREADS, Revision

EVALUATE = "metrics/evaluate.json"
TRAIN = "metrics/train.json"
CURVES = "plots/training.csv"
PER_CLASS = "plots/per_class.csv"
CALIBRATION = "plots/calibration.csv"
CALIBRATED = ["confidence", "accuracy", "images", "perfect"]
KEEP, LOWEST = "keep", "validation_loss"  # with ``keep: best``, the epoch of the lowest one
TOLERANCE = 2e-6  # the tables are written with six decimals
ROUNDED = 5e-7  # by as much a confidence in the table may be off

Floats = NDArray[np.float64]


def read_predictions(revision: Revision) -> pd.DataFrame | None:
    """Return the committed predictions, with numbers as such; None if there are none."""
    table = revision.predictions
    if table is None:
        return None
    numbers = [name for name in ("confidence", "loss") if name in table]
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in numbers})


def calibration_error(predictions: pd.DataFrame) -> float:
    """Return the expected calibration error, as `evaluate` computes it."""
    table = calibration_of(predictions)
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["images"]).sum() / len(predictions))


def bins_on_edge(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Return the lower bin, from 0 on, of each confidence that may belong to two.

    Of a confidence that is rounded, nobody knows on which side of the edge of a bin it was.
    """
    confidence = predictions["confidence"].to_numpy(float)
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    return np.nonzero(np.abs(confidence[:, None] - edges) <= ROUNDED)[1]


def expected_metrics(
    predictions: pd.DataFrame, classes: list[str], split: str
) -> dict[str, tuple[float, float]]:
    """Return the metrics of `evaluate` that follow from the predictions: all but the loss.

    Parameters
    ----------
    predictions : DataFrame
        From `read_predictions`.
    classes : list of str
        Names of all classes.
    split : str
        The images that were scored, as the names of the metrics begin.

    Returns
    -------
    dict of str to (float, float)
        Value and tolerance.
    """
    images = len(predictions)
    right = int((predictions["actual"] == predictions["predicted"]).sum())
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    on_edge = len(bins_on_edge(predictions))
    macro_f1 = float(np.nanmean(score_classes(predictions, classes)["f1"]))
    return {
        f"{split}_accuracy": (right / images, TOLERANCE),
        f"{split}_accuracy_low": (interval.low, TOLERANCE),
        f"{split}_accuracy_high": (interval.high, TOLERANCE),
        "errors": (images - right, 0),
        "macro_f1": (macro_f1, TOLERANCE),
        "expected_calibration_error": (
            calibration_error(predictions),
            TOLERANCE + 2 * on_edge / images,
        ),
    }


def possible_losses(predictions: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the least and the largest loss of each image with which a model can predict this.

    Of an image that it gets right the loss is known. Of one that it gets wrong the class that
    it is has no more than the confidence, and no more than what the confidence leaves.
    """
    confidence = predictions["confidence"].to_numpy(float)
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    most = np.where(right, confidence, np.minimum(confidence, 1 - confidence)) + ROUNDED
    least = np.where(right, confidence - ROUNDED, LEAST)
    low, high = (-np.log(np.clip(p, LEAST, 1)) for p in (most, least))
    return low, high


def contradictions(revision: Revision) -> Iterator[str]:
    """Yield where metrics and tables are not those of the predictions and curves beside them."""
    yield from wrong_provenance(revision)
    yield from wrong_curves(revision)
    try:
        predictions = read_predictions(revision)
    except InputError as error:
        yield str(error)
        return
    if predictions is None:
        return
    if "split" in predictions and set(predictions["split"]) != {revision.split}:
        yield f"{EVALUATE} is of {revision.split} images, and {PREDICTIONS_FILE} of others"
    table = revision.table(PER_CLASS, ["class", "precision", "recall", "f1", "images"])
    named = {*predictions["actual"], *predictions["predicted"]}
    classes = sorted(named if table is None else {*named, *table["class"]})
    for name, (value, tolerance) in expected_metrics(predictions, classes, revision.split).items():
        said = revision.metrics.get(name, value)
        if not is_number(said) or not abs(said - value) <= tolerance:
            yield f"{EVALUATE} says {name} {shown(said)}, and {PREDICTIONS_FILE} gives {value:.6g}"
    yield from wrong_losses(revision, predictions)
    if table is not None:
        yield from wrong_classes(table, predictions, classes)
    calibration = revision.table(CALIBRATION, CALIBRATED)
    if calibration is not None:
        yield from wrong_calibration(calibration, predictions)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a file of metrics is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Write a value of a file of metrics."""
    return f"{value:.6g}" if is_number(value) else repr(value)


def wrong_losses(revision: Revision, predictions: pd.DataFrame) -> Iterator[str]:
    """Yield which losses the predictions do not allow: that of an image, and the mean."""
    low, high = possible_losses(predictions)
    means = float(low.mean()), float(high.mean())
    if "loss" in predictions:
        losses = predictions["loss"].to_numpy(float)
        is_wrong = (losses < low - TOLERANCE) | (losses > high + TOLERANCE)
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            yield (
                f"{PREDICTIONS_FILE} says in row {row + 1} loss {losses[row]:.6g}, and what it "
                f"predicts there has one from {low[row]:.6g} to {high[row]:.6g}"
            )
        means = losses.mean() - TOLERANCE, losses.mean() + TOLERANCE
    name = f"{revision.split}_loss"
    said = revision.metrics.get(name, means[0])
    if not is_number(said) or not means[0] <= said <= means[1]:
        yield (
            f"{EVALUATE} says {name} {shown(said)}, and with {PREDICTIONS_FILE} it lies between "
            f"{means[0]:.6g} and {means[1]:.6g}"
        )


def wrong_classes(
    table: pd.DataFrame, predictions: pd.DataFrame, classes: list[str]
) -> Iterator[str]:
    """Yield the classes of which plots/per_class.csv says what the predictions do not."""
    if table["class"].duplicated().any():
        yield f"{PER_CLASS} has a class twice"
        return
    scores = score_classes(predictions, classes).set_index("class")
    said = table.set_index("class").reindex(classes)[list(scores)]
    said = said.apply(pd.to_numeric, errors="coerce")
    same = np.isclose(said, scores, rtol=0, atol=TOLERANCE, equal_nan=True).all(axis=1)
    if not same.all():
        wrong = ", ".join(np.array(classes)[~same])
        yield f"{PER_CLASS} is not of {PREDICTIONS_FILE}, in class {wrong}"


def wrong_calibration(table: pd.DataFrame, predictions: pd.DataFrame) -> Iterator[str]:
    """Yield whether plots/calibration.csv says what the predictions do not."""
    said, expected = (
        by_bin(found.apply(pd.to_numeric, errors="coerce"))
        for found in (table, calibration_of(predictions))
    )
    lower = bins_on_edge(predictions)
    bins = sorted({*said.index, *expected.index} - {*lower, *(lower + 1)})
    if said.index.has_duplicates:
        yield f"{CALIBRATION} has a bin twice"
        return
    first, second = (found.reindex(bins)[CALIBRATED].to_numpy(float) for found in (said, expected))
    same = np.isclose(first, second, rtol=0, atol=TOLERANCE).all(axis=1)
    for number in np.flatnonzero(~same)[:1]:
        yield (
            f"{CALIBRATION} is not of {PREDICTIONS_FILE}, in the bin of confidence from "
            f"{bins[number] / BINS:.3f} to {(bins[number] + 1) / BINS:.3f}"
        )


def by_bin(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the calibration by the number of the bin, from 0 on; -1 of no number."""
    bins = np.ceil(table["confidence"].to_numpy(float) * BINS) - 1
    return table.set_index(np.nan_to_num(bins, nan=-1).astype(int))


def wrong_curves(revision: Revision) -> Iterator[str]:
    """Yield whether metrics/train.json is not the epoch of the curves whose weights were kept."""
    numbers = revision.mapping(TRAIN)
    curves = revision.table(CURVES, [])
    names = [] if curves is None else [name for name in numbers if name in curves]
    if curves is None or curves.empty or not names:
        return
    said = np.array([numbers[name] if is_number(numbers[name]) else np.nan for name in names])
    rows = curves[names].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    kept = [len(rows) - 1]
    if revision.parameter(KEEP) == "best" and LOWEST in names:
        losses = rows[:, names.index(LOWEST)]
        kept = np.flatnonzero(losses <= losses.min() + TOLERANCE).tolist()
    if not np.isclose(rows[kept], said, rtol=0, atol=TOLERANCE).all(axis=1).any():
        row = dict(zip(names, rows[kept[0]], strict=True))
        pairs = ", ".join(f"{name} {shown(numbers[name])} and {row[name]:.6g}" for name in names)
        yield f"{TRAIN} is not the epoch of {CURVES} that was kept: {pairs}"


def wrong_provenance(revision: Revision) -> Iterator[str]:
    """Yield the packages and threads that it was not made with, though it names them."""
    made_with = revision.mapping(PROVENANCE)
    threads = revision.mapping(str(PARAMS)).get(THREADS)
    named = {name: (version, PACKAGES) for name, version in revision.mapping(str(PACKAGES)).items()}
    if threads is not None:  # of all cores, nobody here knows how many there were
        named[THREADS] = threads, PARAMS
    for name, (value, file) in named.items():
        if str(made_with.get(name, value)) != str(value):
            yield (
                f"{PROVENANCE} says that it was made with {name} {made_with[name]}, and "
                f"{file} has {value}"
            )
