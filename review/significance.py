"""Tell a difference between two results from luck."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95  # of the intervals; a test is significant below 1 - LEVEL

Verdict = Literal[
    "an improvement",
    "a regression",
    "not distinguishable from noise",
    "no test can tell it from noise",
]


@dataclass(frozen=True)
class Comparison:
    """Two accuracies, or two means of accuracies, and what tells them apart.

    Attributes
    ----------
    before, after : float
        From 0 to 1.
    low, high : float
        Interval of ``after - before`` at `LEVEL`; NaN if nothing varies.
    p_value : float
        Probability of a difference this large or larger if there were none in truth; NaN if
        the test needs values that vary and they do not.
    test : str
        Name of the test.
    corrected : float
        The p value, corrected for other comparisons on the same images; NaN if there is none.
    split : str
        ``test`` or ``validation``: the images of both sides; "" where those of the sides differ.
    """

    before: float
    after: float
    low: float
    high: float
    p_value: float
    test: str
    corrected: float = field(default=math.nan, kw_only=True)
    split: str = field(default="test", kw_only=True)

    @property
    def verdict(self) -> Verdict:
        """What a reviewer may say of the difference.

        Who tries many settings and shows the best one has chosen it for its luck: an improvement
        must hold with the corrected p value. Nobody looks for a regression, and one must be seen
        however much was tried before: there the p value itself counts.
        """
        if math.isnan(self.p_value):
            return "no test can tell it from noise"
        is_better = self.after > self.before
        p_value = self.corrected if is_better and self.is_corrected else self.p_value
        if not p_value < 1 - LEVEL:
            return "not distinguishable from noise"
        return "an improvement" if is_better else "a regression"

    @property
    def is_corrected(self) -> bool:
        """Whether there is a corrected p value."""
        return not math.isnan(self.corrected)


@dataclass(frozen=True)
class PairedComparison(Comparison):
    """The accuracies of two models that scored the same images.

    Attributes
    ----------
    fixed, broken : int
        Images that only the later model got right, and images that only the earlier one did.
    """

    fixed: int
    broken: int


def same_images(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame | None:
    """Match two tables of predictions on the image's name and label.

    Parameters
    ----------
    before, after : DataFrame
        Columns ``image``, ``actual``, ``predicted`` and ``confidence``.

    Returns
    -------
    DataFrame or None
        A row for each image, in the order of `after`, with ``predicted`` and ``confidence`` of
        both tables under the suffixes ``_before`` and ``_after``. None if the two tables are
        not of the same images, or have an image twice.
    """
    if before.duplicated("image").any() or after.duplicated("image").any():
        return None
    matched = after.merge(before, on=["image", "actual"], suffixes=("_after", "_before"))
    return matched if len(matched) == len(before) == len(after) > 0 else None


def right_before_and_after(matched: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each image of `same_images` was classified correctly, by either side."""
    return (
        (matched["predicted_before"] == matched["actual"]).to_numpy(),
        (matched["predicted_after"] == matched["actual"]).to_numpy(),
    )


def student(difference: float, *samples: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the interval of a difference of means and its p value, by Student's t.

    Parameters
    ----------
    difference : float
        The difference of the means of two samples, or the mean of one sample of differences.
    samples : ndarray, shape (N,)
        One or two. The degrees of freedom are Welch's: for one sample, N - 1.

    Returns
    -------
    low, high, p_value : float
        NaN if nothing varies, or if a sample has fewer than two values. SciPy's own tests
        would take rounding errors for a variance there, and warn.
    """
    if min(map(len, samples)) < 2:
        return math.nan, math.nan, math.nan
    # The first value is subtracted: it changes no variance, and makes that of equal values 0.
    squared_errors = [np.var(sample - sample[0], ddof=1) / len(sample) for sample in samples]
    error = math.sqrt(sum(squared_errors))
    if error == 0:
        return math.nan, math.nan, math.nan
    # Each is taken as a share of the sum, because the square of a small one could become 0.
    shares = [squared / sum(squared_errors) for squared in squared_errors]
    freedom = 1 / sum(
        share**2 / (len(sample) - 1) for share, sample in zip(shares, samples, strict=True)
    )
    low, high = stats.t.interval(LEVEL, freedom, difference, error)
    return low, high, 2 * stats.t.sf(abs(difference) / error, freedom)


def paired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedComparison:
    """Compare two models on the same images: exact McNemar test [1]_, paired interval [2]_.

    Parameters
    ----------
    before, after : ndarray of bool, shape (N,)
        Whether each image was classified correctly, in one order.

    References
    ----------
    .. [1] Q. McNemar, "Note on the sampling error of the difference between correlated
       proportions or percentages", Psychometrika 12, 1947; exact as a binomial test of the
       images on which the models differ.
    .. [2] A. Agresti, "Categorical data analysis", section on dependent proportions: the
       paired t interval of the differences.

    Examples
    --------
    Of 100 images, the later model gets 8 right that the earlier one got wrong, and 3 wrong that
    it got right. That may well be luck: of 11 throws of a coin, 8 or more show the same side in
    22.7% of all cases.

    >>> before = np.repeat([True, True, False, False], [87, 3, 8, 2])
    >>> after = np.repeat([True, False, True, False], [87, 3, 8, 2])
    >>> result = paired(before, after)
    >>> result.before, result.after, result.fixed, result.broken
    (0.9, 0.95, 8, 3)
    >>> f"{result.low:.3f} to {result.high:.3f}"
    '-0.015 to 0.115'
    >>> f"{result.p_value:.3f}: {result.verdict}"
    '0.227: not distinguishable from noise'
    """
    fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
    low, high, _ = student((fixed - broken) / len(before), after.astype(float) - before)
    p_value = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return PairedComparison(
        float(before.mean()),
        float(after.mean()),
        low,
        high,
        p_value,
        "exact McNemar test",
        fixed,
        broken,
    )


def unpaired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Comparison:
    """Compare two models on different images: two proportions.

    Pearson's chi-squared test without a continuity correction, which is the z test of two
    proportions [1]_, and Welch's interval of the difference.

    Parameters
    ----------
    before, after : ndarray of bool, shapes (N,) and (M,)
        Whether each image was classified correctly.

    References
    ----------
    .. [1] A. Agresti, "Categorical data analysis", section on comparing two proportions.

    Examples
    --------
    90 of 100 images are right before, and 97 of 100 other images after:

    >>> result = unpaired(np.repeat([True, False], [90, 10]), np.repeat([True, False], [97, 3]))
    >>> f"{result.low:.3f} to {result.high:.3f}"
    '0.001 to 0.139'
    >>> f"{result.p_value:.3f}: {result.verdict}"
    '0.045: an improvement'
    """
    counts = [[int(side.sum()), int((~side).sum())] for side in (before, after)]
    difference = float(after.mean() - before.mean())
    low, high, _ = student(difference, before.astype(float), after.astype(float))
    # The test divides by zero if all images of both sides are right, or all are wrong.
    p_value = 1.0
    if np.all(np.sum(counts, axis=0)):
        p_value = stats.chi2_contingency(counts, correction=False).pvalue
    return Comparison(
        float(before.mean()), float(after.mean()), low, high, p_value, "test of two proportions"
    )


def over_seeds(before: list[float], after: list[float]) -> Comparison:
    """Compare the mean accuracies of two settings, several seeds each: Welch's t test [1]_.

    Parameters
    ----------
    before, after : list of float
        Accuracies, two or more a side.

    References
    ----------
    .. [1] B. L. Welch, "The generalization of 'Student's' problem when several different
       population variances are involved", Biometrika 34, 1947.

    Examples
    --------
    >>> result = over_seeds([0.976, 0.979, 0.975], [0.981, 0.983, 0.980])
    >>> f"{result.before:.4f} to {result.after:.4f}"
    '0.9767 to 0.9813'
    >>> f"{result.low:.4f} to {result.high:.4f}"
    '0.0004 to 0.0090'
    >>> f"{result.p_value:.3f}: {result.verdict}"
    '0.040: an improvement'

    If the seeds of each side gave the same accuracy, nothing is known of the noise:

    >>> over_seeds([0.97, 0.97], [0.98, 0.98]).verdict
    'no test can tell it from noise'
    """
    samples = [np.asarray(side, float) for side in (before, after)]
    # As in `student`, so that the mean of equal values is exactly theirs.
    mean_before, mean_after = (float(sample[0] + np.mean(sample - sample[0])) for sample in samples)
    low, high, p_value = student(mean_after - mean_before, *samples)
    if mean_before == mean_after:
        p_value = 1.0
    return Comparison(mean_before, mean_after, low, high, p_value, "Welch's t test")


def probability(value: float) -> str:
    """Write a p value with three digits, but never as 0.

    Examples
    --------
    >>> probability(0.0126)
    'p = 0.013'
    >>> probability(0.00003)
    'p < 0.001'
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
