"""The sentences of a review that are read first: the verdict, and what one is warned of."""

import math

from review.current import Check
from review.history import Standing
from review.predictions import PREDICTIONS
from review.revision import PROVENANCE, Revision
from review.significance import LEVEL, Comparison, PairedComparison, Verdict, probability

NUMBERS = ("metrics/train.json", "metrics/evaluate.json")
NOT_FINITE = ("nan", "inf", "infinity")  # as JSON and YAML write it, without sign and point

PLAIN_VERDICT: dict[Verdict, str] = {
    "an improvement": "Better",
    "a regression": "Worse",
    "not distinguishable from noise": "No clear difference",
    "no test can tell it from noise": "Not known",
}


def points(value: float, digits: int = 2) -> str:
    """Write a difference of two shares in percentage points.

    Examples
    --------
    >>> points(0.0095)
    '+0.95'
    """
    return f"{100 * value:+.{digits}f}"


def accuracies(comparison: Comparison, digits: int) -> str:
    """Write two accuracies, their difference and its interval.

    Parameters
    ----------
    comparison : Comparison
        What is written.
    digits : int
        Digits of the interval behind the point.
    """
    difference = f"{points(comparison.after - comparison.before)} points"
    if not math.isnan(comparison.low):
        low, high = points(comparison.low, digits), points(comparison.high, digits)
        difference += f", 95% interval {low} to {high}"
    name = f"{comparison.split} accuracy".lstrip()
    return f"{name} {comparison.before:.2%} to {comparison.after:.2%} ({difference})"


def p_values(comparison: Comparison, standing: Standing | None) -> str:
    """Write the test with its p value, and the one that is corrected for all settings."""
    text = f"{comparison.test}, {probability(comparison.p_value)}"
    if standing is None or not comparison.is_corrected:
        return text
    text += (
        f", and {probability(comparison.corrected)} corrected for being {standing} scored on "
        "these images"
    )
    if comparison.verdict == "a regression" and comparison.corrected >= 1 - LEVEL:
        text += "; a regression counts by the first"
    return text


def images_compared(comparison: Comparison, images_before: int, images_after: int) -> str:
    """Write how many images changed, or that they are not the same."""
    if not isinstance(comparison, PairedComparison):
        return f"The images differ ({images_before:,} before, {images_after:,} after)"
    noun = "image" if comparison.fixed == 1 else "images"
    return f"{comparison.fixed} {noun} newly right, {comparison.broken} newly wrong"


def verdict_sentence(
    comparison: Comparison,
    images_before: int,
    images_after: int,
    standing: Standing | None = None,
) -> str:
    """Say what became of the test accuracy, the verdict first.

    Parameters
    ----------
    comparison : Comparison
        Of the two test accuracies.
    images_before, images_after : int
        Number of test images of each side.
    standing : Standing or None, default None
        Of the later side among the settings that were scored on its test images, if it is known.

    Examples
    --------
    >>> comparison = PairedComparison(
    ...     0.97, 0.9795, 0.0021, 0.0169, 0.0126, "exact McNemar test",
    ...     fixed=36, broken=17, corrected=0.0378,
    ... )
    >>> print(verdict_sentence(comparison, 2000, 2000, Standing(4, 4, [0.3, 0.2])))
    Better: test accuracy 97.00% to 97.95% (+0.95 points, 95% interval +0.2 to +1.7). \
36 images newly right, 17 newly wrong; exact McNemar test, p = 0.013, and p = 0.038 corrected for \
being the 4th setting scored on these images: an improvement.
    """
    images = images_compared(comparison, images_before, images_after)
    return (
        f"{PLAIN_VERDICT[comparison.verdict]}: {accuracies(comparison, digits=1)}. {images}; "
        f"{p_values(comparison, standing)}: {comparison.verdict}."
    )


def seeds_sentence(
    comparison: Comparison,
    seeds_before: int,
    seeds_after: int,
    standing: Standing | None = None,
) -> str:
    """Say what became of the mean test accuracy over several seeds, the verdict first.

    Parameters
    ----------
    comparison : Comparison
        Of the two mean test accuracies.
    seeds_before, seeds_after : int
        Number of seeds of each side.
    standing : Standing or None, default None
        As for `verdict_sentence`.

    Examples
    --------
    >>> comparison = Comparison(0.97, 0.98, -0.002, 0.022, 0.0631, "Welch's t test")
    >>> print(seeds_sentence(comparison, 3, 4))
    No clear difference over several seeds (3 before, 4 after): mean test accuracy 97.00% to \
98.00% (+1.00 points, 95% interval -0.20 to +2.20). Welch's t test, p = 0.063: \
not distinguishable from noise.
    """
    test = p_values(comparison, standing)
    if math.isnan(comparison.low):
        test = "All seeds of each side gave the same accuracy"
    return (
        f"{PLAIN_VERDICT[comparison.verdict]} over several seeds ({seeds_before} before, "
        f"{seeds_after} after): mean {accuracies(comparison, digits=2)}. {test}: "
        f"{comparison.verdict}."
    )


def warnings_about(revision: Revision, check: Check) -> list[str]:
    """Return what a reviewer must know of one side before anything else.

    Parameters
    ----------
    revision : Revision
        The side.
    check : Check
        Whether its results belong to its code.
    """
    warnings = [
        f"{name} in {file} of {revision.name} is {value}, and no finite number."
        for file in NUMBERS
        for name, value in revision.mapping(file).items()
        if str(value).strip("+-.").lower() in NOT_FINITE
    ]
    if check.stages_to_run is None:
        warnings.append(f"DVC cannot read the pipeline of {revision.name}.")
    elif check.stages_to_run:
        warnings.append(
            f"The committed dvc.lock of {revision.name} does not belong to its committed code "
            f"and parameters: DVC would run {', '.join(check.stages_to_run)}. Its numbers may be "
            "those of another experiment."
        )
    if check.unmade:
        warnings.append(
            f"Not every result of {revision.name} is made by a stage: {'; '.join(check.unmade)}."
        )
    if check.missing_results:
        warnings.append(
            f"{revision.name} lacks results that Git should keep: "
            f"{', '.join(check.missing_results)}. `dvc repro` makes them; commit what it writes."
        )
    if revision.accuracy is None:
        warnings.append(
            f"{revision.name} has no {revision.split}_accuracy from 0 to 1 in "
            "metrics/evaluate.json."
        )
    elif revision.predictions is None:
        warnings.append(
            f"{revision.name} has no plots/predictions.csv with rows of "
            f"{', '.join(PREDICTIONS)}: images are not compared."
        )
    return warnings


def warnings_about_both(before: Revision, after: Revision, other_test_images: bool) -> list[str]:
    """Return in what the two sides differ so that their results are hard to compare.

    Parameters
    ----------
    before, after : Revision
        The two sides.
    other_test_images : bool
        Whether it is known that they were not scored on the same images.
    """
    warnings = []
    if before.split != after.split:
        warnings.append(
            f"{before.name} was scored on {before.split} images, {after.name} on {after.split} "
            "images (`evaluate_on`): the two accuracies do not compare."
        )
    elif other_test_images:
        warnings.append("The test set differs: the two were not scored on the same images.")
    data_before, data_after = before.data_hashes(), after.data_hashes()
    if data_before and data_after and data_before != data_after:
        warnings.append(
            "The data set itself differs, by its hash in dvc.lock: two images of the same name may "
            "be different images."
        )
    made_before, made_after = before.mapping(PROVENANCE), after.mapping(PROVENANCE)
    differing = [
        f"{key}: {made_before.get(key)} before, {made_after.get(key)} after"
        for key in dict.fromkeys([*made_before, *made_after])
        if made_before.get(key) != made_after.get(key)
    ]
    if made_before and made_after and differing:
        warnings.append(
            "The two were not trained in the same place, which by itself changes a result: "
            f"{'; '.join(differing)}."
        )
    return warnings
