"""What a revision says of its own result, and where that contradicts itself.

Nothing is run for it: the metrics must be those of the predictions that are committed beside them.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from common.scores import BINS, LEAST, calibration_of, score_classes
from review.packages import PACKAGES
from review.revision import PROVENANCE, Revision

PREDICTIONS_FILE = "plots/predictions.csv"
CURVES = "plots/training.csv"
TOLERANCE = 2e-6  # the tables are written with six decimals
ROUNDED = 5e-7  # by as much a confidence in the table may be off


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
        Value and tolerance. Of a confidence that is rounded, nobody knows on which side of the
        edge of a bin it was.
    """
    images = len(predictions)
    right = int((predictions["actual"] == predictions["predicted"]).sum())
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    confidence = predictions["confidence"].to_numpy(float)
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    on_edge = int((np.abs(confidence[:, None] - edges) <= ROUNDED).any(axis=1).sum())
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


def possible_losses(predictions: pd.DataFrame) -> tuple[float, float]:
    """Return the least and the largest loss with which a model can make these predictions.

    Of an image that it gets right the loss is known. Of one that it gets wrong the class that
    it is has no more than the confidence, and no more than what the confidence leaves.
    """
    confidence = predictions["confidence"].to_numpy(float)
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    most = np.where(right, confidence, np.minimum(confidence, 1 - confidence)) + ROUNDED
    least = np.where(right, confidence - ROUNDED, LEAST)
    low, high = (float(-np.log(np.clip(p, LEAST, 1)).mean()) for p in (most, least))
    return low, high


def contradictions(revision: Revision) -> Iterator[str]:
    """Yield where metrics and tables are not those of the predictions and curves beside them."""
    yield from wrong_versions(revision)
    yield from wrong_curves(revision)
    predictions = read_predictions(revision)
    if predictions is None:
        return
    if not predictions["confidence"].between(0, 1).all():
        yield f"{PREDICTIONS_FILE} has confidences that are no number from 0 to 1"
        return
    table = revision.table("plots/per_class.csv", ["class", "precision", "recall", "f1", "images"])
    named = {*predictions["actual"], *predictions["predicted"]}
    classes = sorted(named if table is None else {*named, *table["class"]})
    split = "validation" if "validation_accuracy" in revision.metrics else "test"
    for name, (value, tolerance) in expected_metrics(predictions, classes, split).items():
        said = revision.metrics.get(name)
        if isinstance(said, int | float) and not abs(said - value) <= tolerance:
            yield (
                f"metrics/evaluate.json says {name} {said:.6g}, and {PREDICTIONS_FILE} gives "
                f"{value:.6g}"
            )
    loss = revision.metrics.get(f"{split}_loss")
    low, high = possible_losses(predictions)
    if "loss" in predictions:
        mean = predictions["loss"].mean()
        low, high = max(low, mean - TOLERANCE), min(high, mean + TOLERANCE)
    if isinstance(loss, int | float) and not low <= loss <= high:
        yield (
            f"metrics/evaluate.json says {split}_loss {loss:.6g}, and with {PREDICTIONS_FILE} it "
            f"lies between {low:.6g} and {high:.6g}"
        )
    if table is not None:
        yield from wrong_classes(table, predictions, classes)


def wrong_classes(
    table: pd.DataFrame, predictions: pd.DataFrame, classes: list[str]
) -> Iterator[str]:
    """Yield the classes of which plots/per_class.csv says what the predictions do not."""
    scores = score_classes(predictions, classes).set_index("class")
    said = table.set_index("class").reindex(classes)[list(scores)]
    said = said.apply(pd.to_numeric, errors="coerce")
    same = np.isclose(said, scores, rtol=0, atol=TOLERANCE, equal_nan=True).all(axis=1)
    if not same.all():
        wrong = ", ".join(np.array(classes)[~same])
        yield f"plots/per_class.csv is not of {PREDICTIONS_FILE}, in class {wrong}"


def wrong_curves(revision: Revision) -> Iterator[str]:
    """Yield whether metrics/train.json is no epoch of the curves."""
    numbers = revision.mapping("metrics/train.json")
    curves = revision.table(CURVES, list(numbers)) if numbers else None
    if curves is None:
        return
    rows = curves[list(numbers)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    said = np.array(
        [value if isinstance(value, int | float) else np.nan for value in numbers.values()]
    )
    if not np.isclose(rows, said, rtol=0, atol=TOLERANCE).all(axis=1).any():
        yield f"metrics/train.json is no epoch of {CURVES}"


def wrong_versions(revision: Revision) -> Iterator[str]:
    """Yield the packages that it was not made with, though it names them."""
    made_with = revision.mapping(PROVENANCE)
    for name, version in revision.mapping(str(PACKAGES)).items():
        if str(made_with.get(name, version)) != str(version):
            yield (
                f"{PROVENANCE} says that it was made with {name} {made_with[name]}, and "
                f"{PACKAGES} has {version}"
            )
