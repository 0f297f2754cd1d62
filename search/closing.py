"""Say at the end of a search whether its best setting is better, or was lucky.

Who tries many settings and takes the best has chosen it for its luck, too: that of its seed, and
that of the images that judged. The best setting and the committed one are therefore run with
seeds that chose nothing, and the test that compares them allows for what the images chose.
"""

import json
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from common.console import InputError
from review.revision import Revision
from review.seeds import right_by_seed
from review.significance import LEVEL, Comparison, probability
from search.results import State

SMALLEST = 1e-12  # p value that is told from 0


def compare(winner: list[Revision], default: list[Revision], trials: int) -> Comparison:
    """Compare the best setting of a search with the committed one.

    Parameters
    ----------
    winner, default : list of Revision
        Their experiments, with the same seeds in one order, none of which has chosen a setting.
    trials : int
        How many trials the best one was chosen from.

    Raises
    ------
    InputError
        If they were not judged on the same images.
    """
    sides = [
        [r.predictions for r in side if r.predictions is not None] for side in (default, winner)
    ]
    rows = right_by_seed(*sides) if len(sides[0]) == len(sides[1]) > 1 else None
    if rows is None:
        raise InputError(
            f"{winner[0].name} and {default[0].name} were not judged on the same images"
        )
    return beyond_luck(*rows, trials)


def beyond_luck(default: NDArray[np.bool_], winner: NDArray[np.bool_], trials: int) -> Comparison:
    """Compare two settings, of which one was chosen as the best of many on the same images.

    A gain may be the luck of the seeds, or that of the images. Seeds that chose nothing are a
    plain sample: a t test over them needs no correction. The images did choose: what they add to
    the best of `trials` settings is corrected for their number, after Bonferroni. The gain must
    be larger than what both may add together, each with half of the probability of an error.

    Parameters
    ----------
    default, winner : ndarray of bool, shapes (seeds, images)
        Whether each image was classified correctly; two seeds or more, the same ones.
    trials : int
        How many settings the winner was chosen from.

    Returns
    -------
    Comparison
        The interval and the p value are of the gain, two-sided.

    Examples
    --------
    Ten more of 200 images are right, with each of four seeds, which differ a little:

    >>> default = np.repeat([[True, False]] * 4, [180, 20], axis=1)
    >>> winner = default.copy()
    >>> winner[:, 180:190] = True
    >>> winner[0, 190] = winner[1, 191] = True
    >>> one, many = (beyond_luck(default, winner, trials) for trials in (1, 100))
    >>> f"{one.p_value:.3f} {many.p_value:.3f}"
    '0.012 0.277'
    """
    gains = winner.astype(np.float64) - default
    by_seed, by_image = gains.mean(axis=1), gains.mean(axis=0)
    gain, freedom = float(gains.mean()), len(by_seed) - 1
    of_seeds = float(stats.sem(by_seed))
    of_images = float(stats.sem(by_image)) if len(by_image) > 1 else 0.0  # one tells of no other

    def added(error: float) -> float:
        """Return what luck may add, or take off, but for this probability of an error."""
        seeds = of_seeds * stats.t.isf(error / 4, freedom)
        return float(seeds + of_images * stats.norm.isf(error / 4 / trials))

    if not of_images:
        p_value = math.nan if gain else 1.0
    elif added(1.0) >= abs(gain):
        p_value = 1.0
    elif added(SMALLEST) <= abs(gain):  # few images, of which nearly all are newly right
        p_value = SMALLEST
    else:
        p_value = optimize.brentq(lambda error: added(error) - abs(gain), SMALLEST, 1.0)
    reach = added(1 - LEVEL)
    means = float(default.mean()), float(winner.mean())
    name = "t test over seeds, corrected z test over images"
    return Comparison(*means, gain - reach, gain + reach, p_value, name, split="validation")


def sentence(
    trial: int,
    values: Mapping[str, object],
    counts: Mapping[State, int],
    result: Comparison | None,
    fresh: int,
) -> str:
    """Return what a search found, in one sentence.

    Parameters
    ----------
    trial : int
        The number of the best trial.
    values : dict
        Its parameters that differ from the committed ones.
    counts : dict of str to int
        How many trials are ``finished``, ``pruned`` and ``failed``.
    result : Comparison or None
        Of it and the committed setting; None if they were not compared.
    fresh : int
        With how many seeds each of the two was run.
    """
    trials = sum(counts.values())
    changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    ended = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    best = f"the best of {trials} trials ({ended}) is {trial}, {changes}"
    if result is None:
        return f"{best}; with FRESH=0, nothing tells whether it is more than lucky"
    difference = 100 * (result.after - result.before)
    direction = "fewer" if difference >= 0 else "more"
    numbers = (
        f"{1 - result.after:.2%} of the validation images wrong, {1 - result.before:.2%} with "
    )
    numbers += f"the committed settings, in the mean of {fresh} fresh seeds each"
    if math.isnan(result.p_value):
        judgement = f"{abs(difference):.2f} points {direction}, and no test can tell it from luck"
    else:
        low, high = sorted((100 * result.low, 100 * result.high))
        judgement = (
            f"{abs(difference):.2f} points {direction} ({LEVEL:.0%} interval of the gain "
            f"{low:.2f} to {high:.2f}, {probability(result.p_value)}, both allow for the choice "
            f"among {trials}), which is "
        )
        is_more = difference > 0 and result.verdict == "an improvement"
        judgement += (
            f"{'' if is_more else 'not '}more than the luck of choosing the best of so many"
        )
    return f"{best}: {numbers}: {judgement}"
