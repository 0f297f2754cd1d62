"""Tell a difference between two results from luck."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95  # of the intervals; a test is significant below 1 - LEVEL


@dataclass(frozen=True)
class Comparison:
    """Two accuracies, or two means of accuracies, and what tells them apart.

    Attributes
    ----------
    before, after : float
        From 0 to 1.
    low, high : float
        Interval of ``after - before`` at `LEVEL`; NaN where nothing varies.
    p_value : float
        Probability of a difference this large or larger if there were none; NaN where the
        test needs a variance and nothing varies.
    test : str
        Name of the test.
    """

    before: float
    after: float
    low: float
    high: float
    p_value: float
    test: str

    @property
    def verdict(self) -> str:
        """What a reviewer may say of the difference."""
        if np.isnan(self.p_value):
            return "cannot be told from noise"
        if not self.p_value < 1 - LEVEL:
            return "not distinguishable from noise"
        return "an improvement" if self.after > self.before else "a regression"


@dataclass(frozen=True)
class PairedComparison(Comparison):
    """Two models that scored the same images.

    Attributes
    ----------
    fixed, broken : int
        Images that only the later, only the earlier model got right.
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
        A row an image, ``predicted`` and ``confidence`` of both with the suffixes
        ``_before`` and ``_after``, in the order of `after`; None where the two did not score
        the same images, each once.
    """
    key = ["image", "actual"]
    if before.duplicated("image").any() or after.duplicated("image").any():
        return None
    matched = after.merge(before, on=key, suffixes=("_after", "_before"))
    return matched if len(matched) == len(before) == len(after) > 0 else None


def student(difference: float, *samples: np.ndarray) -> tuple[float, float, float]:
    """Return the interval of a difference of means and its p value, by Student's t.

    Parameters
    ----------
    difference : float
        Of the means of two samples, or the mean of one sample of differences.
    samples : ndarray, shape (N,)
        One or two. The degrees of freedom are Welch's: for one sample, N - 1.

    Returns
    -------
    low, high, p_value : float
        NaN where nothing varies, or a sample has less than two values: SciPy's tests take
        rounding for variance there, and warn.
    """
    if min(map(len, samples)) < 2:
        return math.nan, math.nan, math.nan
    # Less the first value: the variance is the same, and of equal values exactly 0.
    errors = [np.var(sample - sample[0], ddof=1) / len(sample) for sample in samples]
    error = math.sqrt(sum(errors))
    if not error:
        return math.nan, math.nan, math.nan
    # As shares of the whole, so that the square of a small variance does not become 0.
    shares = [one / sum(errors) for one in errors]
    freedom = 1 / sum(s**2 / (len(n) - 1) for s, n in zip(shares, samples, strict=True))
    low, high = stats.t.interval(LEVEL, freedom, difference, error)
    return low, high, 2 * stats.t.sf(abs(difference) / error, freedom)


def paired(before: np.ndarray, after: np.ndarray) -> PairedComparison:
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
    """
    fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
    low, high, _ = student((fixed - broken) / len(before), after.astype(float) - before)
    p_value = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return PairedComparison(
        before.mean(), after.mean(), low, high, p_value, "exact McNemar", fixed, broken
    )


def unpaired(before: np.ndarray, after: np.ndarray) -> Comparison:
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
    """
    table = [[side.sum(), (~side).sum()] for side in (before, after)]
    difference = after.mean() - before.mean()
    low, high, _ = student(difference, before.astype(float), after.astype(float))
    p_value = 1.0
    if np.all(np.sum(table, axis=0)):  # neither all right nor all wrong
        p_value = stats.chi2_contingency(table, correction=False).pvalue
    return Comparison(before.mean(), after.mean(), low, high, p_value, "two proportions")


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
    """
    sides = [np.asarray(side, float) for side in (before, after)]
    # Less the first value, as in `student`: the mean of equal values is exactly theirs.
    means = [side[0] + np.mean(side - side[0]) for side in sides]
    low, high, p_value = student(means[1] - means[0], *sides)
    if means[0] == means[1]:
        p_value = 1.0
    return Comparison(*means, low, high, p_value, "Welch")


def probability(value: float) -> str:
    """Write a p value: three digits, never as 0."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
