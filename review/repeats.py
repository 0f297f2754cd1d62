"""Two results of one setting: what differs between them is luck, and judges no setting."""

import math
from dataclasses import replace

import numpy as np

from review.revision import NO_SETTING, PROVENANCE, Revision, accuracies_of
from review.sentences import accuracies, images_compared
from review.significance import Comparison

DATA_SEED = "data_seed"  # another draw of the images: none is the better setting
NOTHING = "nothing differs, neither in dvc.lock nor in metrics/provenance.json"


def what_differs(before: Revision, after: Revision) -> str | None:
    """Say in what two results of one setting differ; None if they are of two settings.

    They are of one if they come from the same code, data and parameters, but for the seed, the
    draw of the images, and the machine: `threads` and what metrics/provenance.json tells of.
    """
    if not before.stages or before.setting_but(DATA_SEED) != after.setting_but(DATA_SEED):
        return None
    differing = [
        f"{name} ({old} before, {new} after)"
        for name in (*NO_SETTING, DATA_SEED)
        if (old := before.parameter(name)) != (new := after.parameter(name))
    ]
    if before.mapping(PROVENANCE) != after.mapping(PROVENANCE):
        differing.append("the place where it was trained")
    if not differing:
        return NOTHING
    *most, last = differing
    return f"{', '.join(most)} and {last} differ" if most else f"{last} alone differs"


def one_setting_sentence(
    differing: str, comparison: Comparison, images_before: int, images_after: int
) -> str:
    """Say what became of the accuracy between two results of one setting, without a verdict.

    Parameters
    ----------
    differing : str
        From `what_differs`.
    comparison, images_before, images_after
        As for `review.sentences.verdict_sentence`.

    Examples
    --------
    >>> comparison = Comparison(0.97, 0.98, -0.01, 0.03, 0.3, "a test")
    >>> print(one_setting_sentence("seed (42 before, 43 after) alone differs", comparison, 9, 8))
    One setting, no verdict: seed (42 before, 43 after) alone differs; test accuracy 97.00% to \
98.00% (+1.00 points). The images differ (9 before, 8 after). Between runs of one setting that is \
luck.
    """
    found = accuracies(replace(comparison, low=math.nan), digits=1)
    images = images_compared(comparison, images_before, images_after)
    luck = "" if differing == NOTHING else " Between runs of one setting that is luck."
    return f"One setting, no verdict: {differing}; {found}. {images}.{luck}"


def spread_sentence(seeds: dict[int, Revision]) -> str:
    """Say how far the accuracy of a setting varies over its seeds; "" if one alone is known."""
    values = list(accuracies_of(seeds).values())
    if len(values) < 2:
        return ""
    return (
        f"Over the seeds {', '.join(map(str, seeds))} of this setting: mean accuracy "
        f"{np.mean(values):.2%}, standard deviation {100 * np.std(values, ddof=1):.2f} points."
    )
