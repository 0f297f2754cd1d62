"""Tell a difference between two settings from luck by several seeds that score the same images."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from review.significance import LEVEL, Comparison, right_before_and_after, same_images

BLOCKS = 3  # seeds from which on they are blocks: of two, too little is known of what varies


@dataclass(frozen=True)
class Errors:
    """How far the mean of a table of seeds and images may lie from the truth, as squares.

    Attributes
    ----------
    seeds : float
        Squared standard error of the mean, as the seeds tell it.
    rest : float
        The part of it that belongs to neither a seed nor an image, but to one training's luck
        with one image. The images tell this part as well: it must not count twice.
    """

    seeds: float
    rest: float


def errors_of(table: NDArray[np.float64]) -> Errors:
    """Return the errors of the mean of a table: its two-way analysis of variance.

    Parameters
    ----------
    table : ndarray of float64, shape (seeds, images)
        A value for each seed and image; two seeds or more, two images or more.
    """
    seeds, images = table.shape
    by_seed = table.mean(axis=1)
    left = table - by_seed[:, np.newaxis] - table.mean(axis=0) + table.mean()
    rest = float((left**2).sum()) / ((seeds - 1) * (images - 1))
    # The first value is subtracted: it changes no variance, and makes that of equal values 0.
    variance = float(np.var(by_seed - by_seed[0], ddof=1))
    return Errors(variance / seeds, rest / (seeds * images))


def over_seeds_and_images(
    before: NDArray[np.bool_], after: NDArray[np.bool_], same_seeds: bool
) -> Comparison:
    """Compare two settings whose seeds all scored the same images.

    Both the seeds and the images are taken for a sample: other seeds would give other
    accuracies, and so would other images, on which the one setting may do better than the other.
    A test over the seeds alone knows nothing of the images, and finds differences that other
    images would not show. This is the test of Obuchowski and Rockette [1]_, in which several
    readers judge the same cases, with Hillis's degrees of freedom [2]_: seeds are the readers.
    If both sides have the same seeds, three or more, each seed is a block of two trainings.

    Parameters
    ----------
    before, after : ndarray of bool, shapes (seeds, images)
        Whether each image was classified correctly, the images in one order; two seeds or more
        a side.
    same_seeds : bool
        Whether the rows of both are of the same seeds, in one order.

    References
    ----------
    .. [1] N. A. Obuchowski and H. E. Rockette, "Hypothesis testing of diagnostic accuracy for
       multiple readers and multiple tests: an ANOVA approach with dependent observations",
       Communications in Statistics - Simulation and Computation 24, 1995.
    .. [2] S. L. Hillis, "A comparison of denominator degrees of freedom methods for multiple
       observer ROC analysis", Statistics in Medicine 26, 2007; for other readers on each side:
       "A marginal-mean ANOVA approach for analyzing multireader multicase radiological imaging
       data", Statistics in Medicine 33, 2014.

    Examples
    --------
    Three seeds a side, 200 images. The later setting gets ten more images right, with each seed:

    >>> before = np.repeat([[True, False]] * 3, [170, 30], axis=1)
    >>> before[0, 0] = before[1, 1] = before[1, 2] = False
    >>> after = before.copy()
    >>> after[:, 170:180] = True
    >>> after[2, 3] = False
    >>> result = over_seeds_and_images(before, after, same_seeds=True)
    >>> f"{result.before:.3f} to {result.after:.3f}"
    '0.845 to 0.893'
    >>> f"{result.low:.3f} to {result.high:.3f}"
    '0.018 to 0.079'
    >>> f"{result.p_value:.3f}: {result.verdict}"
    '0.002: an improvement'
    """
    sides = [side.astype(np.float64) for side in (before, after)]
    difference_by_image = sides[1].mean(axis=0) - sides[0].mean(axis=0)
    difference = float(difference_by_image.mean())
    name, errors = "t test over seeds and images", [errors_of(side) for side in sides]
    if same_seeds and len(before) >= BLOCKS:
        blocks = sides[1] - sides[0]
        of_blocks = errors_of(blocks)
        # Blocks that all differ by as many images tell nothing of how the seeds vary.
        if of_blocks.seeds > 0:
            sides, errors = [blocks], [of_blocks]
            name = "t test over seeds, as blocks, and images"
    of_images = float(np.var(difference_by_image, ddof=1)) / difference_by_image.size
    of_seeds = sum(error.seeds for error in errors)
    low = high = p_value = math.nan
    if of_seeds > 0:
        squared = of_seeds + max(of_images - sum(error.rest for error in errors), 0.0)
        shares = [error.seeds / squared for error in errors]
        freedom = 1 / sum(
            share**2 / (len(side) - 1) for share, side in zip(shares, sides, strict=True)
        )
        low, high = stats.t.interval(LEVEL, freedom, difference, math.sqrt(squared))
        p_value = 2 * stats.t.sf(abs(difference) / math.sqrt(squared), freedom)
    elif difference == 0:
        p_value = 1.0
    return Comparison(
        float(before.mean()), float(after.mean()), float(low), float(high), float(p_value), name
    )


def right_by_seed(
    before: list[pd.DataFrame], after: list[pd.DataFrame]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return whether each seed classified each image correctly.

    None if the seeds did not score the same images, or scored one alone.

    Parameters
    ----------
    before, after : list of DataFrame
        The predictions of each seed of a side, one seed or more.

    Returns
    -------
    before, after : ndarray of bool, shapes (seeds, images)
        The images in one order.
    """
    sides = []
    for tables in (before, after):
        rows = []
        for table in tables:
            matched = same_images(table, before[0])
            if matched is None or len(matched) < 2:
                return None
            rows.append(right_before_and_after(matched)[0])
        sides.append(np.stack(rows))
    return sides[0], sides[1]
