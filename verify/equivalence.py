"""Whether two runs of one setting are equally good, and whether they are runs of one seed."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

LEVEL = 0.90  # of the intervals: two one-sided tests at 5% each
WIDEST = 0.02  # the margin where no seeds were run, and the widest that they can give
ROUNDING = 0.02  # of a confidence that a processor computes: 0.000001, and 0.01 with bfloat16
LOSS_ROUNDING = 0.25  # in nats: of two logits of 60, bfloat16 may round each by an eighth


@dataclass(frozen=True)
class Difference:
    """A difference of two means over the same images, and its interval at `LEVEL`."""

    value: float
    low: float
    high: float

    def is_within(self, margin: float) -> bool:
        """Whether it is smaller than a margin, by two one-sided tests [1]_.

        Both tests reject at 5% exactly where the interval at 90% lies inside the margin.

        References
        ----------
        .. [1] D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power
           approach for assessing the equivalence of average bioavailability", Journal of
           Pharmacokinetics and Biopharmaceutics 15, 1987.
        """
        return -margin < self.low and self.high < margin

    def is_outside(self, margin: float) -> bool:
        """Whether it is larger than a margin, the whole interval."""
        return self.low > margin or self.high < -margin


def score(gained: int, lost: int, images: int, difference: float) -> float:
    """Return how far two paired proportions are from a difference, in standard errors [1]_.

    Parameters
    ----------
    gained, lost : int
        Images that are right on the second side alone, and on the first side alone.
    images : int
        All images.
    difference : float
        The difference that is assumed, between -1 and 1, neither included.

    References
    ----------
    .. [1] T. Tango, "Equivalence test and confidence interval for the difference in proportions
       for the paired-sample design", Statistics in Medicine 17, 1998.
    """
    a = 2 * images
    b = (2 * images - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = images * (2 * share + difference * (1 - difference))
    distance = gained - lost - images * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def accuracy_difference(
    right_before: NDArray[np.bool_], right_after: NDArray[np.bool_], level: float = LEVEL
) -> Difference:
    """Return the difference of two accuracies on the same images, with Tango's interval.

    Parameters
    ----------
    right_before, right_after : ndarray of bool, shape (N,)
        Whether each image was classified correctly, in one order.
    level : float
        Of the interval.

    Examples
    --------
    Of 1000 images, 12 are right on the second side alone, and 9 on the first side alone:

    >>> before = np.repeat([False, True, True], [12, 9, 979])
    >>> after = np.repeat([True, False, True], [12, 9, 979])
    >>> found = accuracy_difference(before, after)
    >>> f"{found.value:.4f}, {found.low:.4f} to {found.high:.4f}"
    '0.0030, -0.0048 to 0.0111'
    >>> found.is_within(0.02), found.is_within(0.01)
    (True, False)
    """
    images = len(right_before)
    gained = int((right_after & ~right_before).sum())
    lost = int((right_before & ~right_after).sum())
    value = (gained - lost) / images
    quantile = stats.norm.ppf((1 + level) / 2)

    def end(sign: int) -> float:
        limit = sign * (1 - 1e-9)
        if abs(value) >= abs(limit):
            return value
        return float(
            optimize.brentq(
                lambda d: score(gained, lost, images, d) + sign * quantile, value, limit
            )
        )

    return Difference(value, end(-1), end(1))


def mean_difference(before: NDArray[np.float64], after: NDArray[np.float64]) -> Difference:
    """Return the difference of two means over the same images, with the paired t interval."""
    differences = after - before
    value = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)) * error
    return Difference(value, value - reach, value + reach)


def margin_over_seeds(accuracies: list[float]) -> float | None:
    """Return a margin from the accuracies of several seeds; None if they tell none.

    Two runs of one setting differ by less in 99 of 100 cases: Student's t at 99.5%, times the
    standard deviation of a difference. It is never more than `WIDEST`.

    Examples
    --------
    >>> f"{margin_over_seeds([0.9923, 0.9900, 0.9931, 0.9922, 0.9913]):.4f}"
    '0.0077'
    """
    if len(accuracies) < 2:
        return None
    deviation = float(np.std(accuracies, ddof=1))
    if deviation < 1e-12:
        return None
    quantile = float(stats.t.ppf(0.995, len(accuracies) - 1))
    return min(WIDEST, quantile * math.sqrt(2) * deviation)


def likeness(before: pd.Series, after: pd.Series) -> float:
    """Return how alike two runs are: the rank correlation [1]_ of their confidences.

    A network that began with the same weights and saw the same batches doubts the same images.
    Measured: 0.95 to 0.99 for one seed on several processors, 0.6 to 0.8 for two seeds.

    Parameters
    ----------
    before, after : Series of float
        The confidence in what is predicted for each image, in one order of the images.

    References
    ----------
    .. [1] C. Spearman, "The proof and measurement of association between two things", American
       Journal of Psychology 15, 1904.
    """
    if before.nunique() < 2 or after.nunique() < 2:
        return float(before.equals(after))
    return float(before.corr(after, method="spearman"))


def changed_images(matched: pd.DataFrame) -> int:
    """Count the images of which one model cannot have said both, whatever computed it.

    Another processor changes a confidence in its last digits, and the class only where two
    classes are equally likely.

    Parameters
    ----------
    matched : DataFrame
        From `review.significance.same_images`.
    """
    before, after = matched["confidence_before"], matched["confidence_after"]
    other_class = matched["predicted_before"] != matched["predicted_after"]
    is_tie = np.maximum(before, after) < 0.5 + ROUNDING
    is_changed = ((before - after).abs() > ROUNDING) | (other_class & ~is_tie)
    if "loss_before" in matched and "loss_after" in matched:
        losses = matched["loss_before"], matched["loss_after"]
        probabilities = [np.exp(-loss) for loss in losses]
        is_changed |= (losses[0] - losses[1]).abs() > LOSS_ROUNDING
        is_changed |= (probabilities[0] - probabilities[1]).abs() > ROUNDING
    return int(is_changed.sum())
