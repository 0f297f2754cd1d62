"""How far F1, loss and calibration error of two models on the same images may be luck.

No formula gives the error of these three. The images are drawn again instead, with replacement,
as often as `RESAMPLES`, for both models the same ones, and the metrics are computed of each draw.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from review.significance import LEVEL

RESAMPLES = 2000
AT_ONCE = 100  # resamples that are in memory together
SEED = 42
BINS = 15  # of the calibration error, as in `evaluate`

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval at `review.significance.LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """A metric of two models on the same images.

    Attributes
    ----------
    name : str
        As in metrics/evaluate.json.
    before, after, change : Estimate
        Of each model, and of the difference.
    p_value : float
        Twice the share of the draws in which the difference has the other sign or is 0.
    """

    name: str
    before: Estimate
    after: Estimate
    change: Estimate
    p_value: float


def resample(matched: pd.DataFrame) -> list[Resampled]:
    """Compare two models by the paired bootstrap [1]_ with percentile intervals.

    Of the intervals of the bootstrap these hold their level best here: the bias-corrected ones
    take the calibration error of a draw, which is larger than that of the images, for a bias.

    Parameters
    ----------
    matched : DataFrame
        From `review.significance.same_images`.

    Returns
    -------
    list of Resampled
        Macro F1, loss and calibration error, as far as both tables have what they are computed
        of: numbers in ``confidence`` and ``loss``. Every call gives the same.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapters
       8, 13 and 16.
    """
    sides = [metrics_of(matched, side) for side in ("before", "after")]
    names = [name for name in sides[0] if name in sides[1]]
    images = len(matched)
    whole = np.ones((1, images))
    generator = np.random.default_rng(SEED)
    draws = [
        [[side[name](weights) for name in names] for side in sides]
        for weights in (draw(generator, images) for _ in range(RESAMPLES // AT_ONCE))
    ]
    drawn = np.concatenate(draws, axis=-1)  # sides, metrics, resamples
    return [
        compared(name, [side[name](whole).item() for side in sides], drawn[:, number])
        for number, name in enumerate(names)
    ]


def draw(generator: np.random.Generator, images: int) -> Floats:
    """Draw as many images as there are, `AT_ONCE` times; return how often each was drawn."""
    drawn = generator.integers(images, size=(AT_ONCE, images))
    drawn += np.arange(AT_ONCE)[:, np.newaxis] * images
    counts = np.bincount(drawn.ravel(), minlength=AT_ONCE * images)
    return counts.reshape(AT_ONCE, images).astype(np.float64)


def compared(name: str, values: list[float], drawn: Floats) -> Resampled:
    """Return intervals and p value of a metric.

    Parameters
    ----------
    name : str
        What it is called.
    values : list of float
        Before, after.
    drawn : ndarray of float64, shape (2, resamples)
        Its values of the resamples, before and after.
    """
    change = drawn[1] - drawn[0]

    def estimate(value: float, sample: Floats) -> Estimate:
        low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, float(low), float(high))

    other_side = min((change <= 0).sum(), (change >= 0).sum())
    return Resampled(
        name=name,
        before=estimate(values[0], drawn[0]),
        after=estimate(values[1], drawn[1]),
        change=estimate(values[1] - values[0], change),
        p_value=min(1.0, 2 * float(other_side + 1) / (change.size + 1)),
    )


def metrics_of(matched: pd.DataFrame, side: str) -> dict[str, Metric]:
    """Return the metrics of a model as functions of how often each image counts.

    Parameters
    ----------
    matched : DataFrame
        From `review.significance.same_images`.
    side : str
        "before" or "after".

    Returns
    -------
    dict of str to function
        From an ndarray of float64, shape (resamples, images), to one of shape (resamples,).
    """
    images = len(matched)
    actual, predicted = matched["actual"].to_numpy(), matched[f"predicted_{side}"].to_numpy()
    right = (actual == predicted).astype(np.float64)
    labels, classes = pd.factorize(np.concatenate([actual, predicted]))
    is_actual = membership(labels[:images], len(classes), np.ones(images))
    is_predicted = membership(labels[images:], len(classes), np.ones(images))
    is_both = membership(labels[:images], len(classes), right)

    def macro_f1(weights: Floats) -> Floats:
        """Return the mean F1 of the classes that are drawn or predicted, as `evaluate` does."""
        images_of = weights @ is_actual + weights @ is_predicted
        f1 = 2 * np.divide(
            weights @ is_both, images_of, out=np.zeros_like(images_of), where=images_of > 0
        )
        return f1.sum(axis=1) / (images_of > 0).sum(axis=1)

    metrics: dict[str, Metric] = {"macro_f1": macro_f1}
    loss = numbers(matched, f"loss_{side}")
    if loss is not None:
        metrics["test_loss"] = lambda weights: weights @ loss / images
    confidence = numbers(matched, f"confidence_{side}")
    if confidence is not None:
        # The upper bound of a bin belongs to it, as in `evaluate`.
        bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1), right=True) - 1
        gaps = membership(np.clip(bins, 0, BINS - 1), BINS, confidence - right)
        metrics["expected_calibration_error"] = lambda weights: (
            np.abs(weights @ gaps).sum(axis=1) / images
        )
    return metrics


def membership(groups: NDArray[np.int64], count: int, values: Floats) -> sparse.csr_array:
    """Return a matrix that adds up a value of each image by the group of the image.

    Parameters
    ----------
    groups : ndarray of int64, shape (images,)
        The group of each, from 0 on.
    count : int
        Number of groups.
    values : ndarray of float64, shape (images,)
        What is added.

    Returns
    -------
    csr_array of float64, shape (images, count)
    """
    images = len(groups)
    return sparse.csr_array((values, (np.arange(images), groups)), shape=(images, count))


def numbers(table: pd.DataFrame, column: str) -> Floats | None:
    """Return a column as numbers; None if it is missing or holds anything else."""
    if column not in table:
        return None
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    return values if np.isfinite(values).all() else None
