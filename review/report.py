"""Two revisions to one report: what changed, and whether it is more than luck."""

from collections.abc import Iterable

import numpy as np

from review import pictures, significance, tables
from review.revision import PREDICTIONS, Revision, clone, stale_stages
from review.significance import probability

CELLS = 12  # classes up to which a confusion matrix is shown as a table


def points(value: float, digits: int = 2) -> str:
    """Write a difference of two shares in percentage points."""
    return f"{100 * value:+.{digits}f}"


def sentence(result: significance.Comparison, images: tuple[int, int]) -> str:
    """Say in one sentence what became of the test accuracy.

    Parameters
    ----------
    result : Comparison
        Of the test accuracies.
    images : tuple of int
        Test images before and after.
    """
    words = [
        f"Test accuracy {result.before:.2%} to {result.after:.2%}, "
        f"{points(result.after - result.before)} points"
    ]
    if not np.isnan(result.low):
        words[0] += f" (95% CI {points(result.low, 1)} to {points(result.high, 1)})"
    if isinstance(result, significance.PairedComparison):
        words.append(f"{result.fixed} images fixed, {result.broken} broken")
    else:
        words.append(f"on different test images ({images[0]:,} and {images[1]:,})")
    words.append(f"{result.test} {probability(result.p_value)}")
    return ", ".join(words) + f": {result.verdict}."


def sentence_over_seeds(before: list[float], after: list[float]) -> str:
    """Say in one sentence what became of the mean test accuracy over several seeds."""
    result = significance.over_seeds(before, after)
    interval = test = ""
    if not np.isnan(result.low):
        interval = f" (95% CI {points(result.low)} to {points(result.high)})"
        test = f"{result.test} {probability(result.p_value)}"
    return (
        f"Over {len(before)} and {len(after)} seeds: mean {result.before:.2%} to "
        f"{result.after:.2%}, {points(result.after - result.before)} points{interval}, "
        f"{test or 'no difference between the seeds of a side'}: {result.verdict}."
    )


def warnings(
    before: Revision, after: Revision, stale: Iterable[list[str] | None], pairs: bool | None
) -> list[str]:
    """Return what a reviewer must know before anything else.

    Parameters
    ----------
    before, after : Revision
        The two sides.
    stale : iterable of (list of str or None)
        From `stale_stages`, for each side.
    pairs : bool or None
        Whether both scored the same test images; None where that is not known.
    """
    found = []
    for revision, stages in zip((before, after), stale, strict=True):
        if stages is None:
            found.append(f"DVC cannot read the pipeline of {revision.name}.")
        elif stages:
            found.append(
                f"The committed dvc.lock of {revision.name} does not belong to its committed code "
                f"and parameters: {', '.join(stages)} would run. Its numbers may be those of "
                "another experiment."
            )
        if revision.accuracy is None:
            found.append(
                f"{revision.name} has no test_accuracy from 0 to 1 in metrics/evaluate.json."
            )
        elif revision.predictions is None:
            found.append(
                f"{revision.name} has no plots/predictions.csv with rows of "
                f"{', '.join(PREDICTIONS)}: images are not compared."
            )
    if pairs is False:
        found.append("The test set differs: the two were not scored on the same images.")
    datasets = [dataset(side) for side in (before, after)]
    if all(datasets) and datasets[0] != datasets[1]:
        found.append("The data set itself differs: its images may be others of the same names.")
    return found


def dataset(revision: Revision) -> list[object]:
    """Return the hashes of the data that `load` read, by dvc.lock."""
    load = tables.hashes(revision.stages.get("load", {}), "deps")
    return sorted((md5 for path, md5 in load.items() if not path.endswith(".py")), key=str)


def report(before: Revision, after: Revision) -> dict:
    """Gather all that the report shows.

    Parameters
    ----------
    before, after : Revision
        What is compared.

    Returns
    -------
    dict
        The variables of the two templates.
    """
    matched = result = None
    sides = before.predictions, after.predictions
    if all(side is not None for side in sides):
        matched = significance.same_images(*sides)
        if matched is not None:
            right = matched["actual"]
            result = significance.paired(
                (matched["predicted_before"] == right).to_numpy(),
                (matched["predicted_after"] == right).to_numpy(),
            )
        else:
            result = significance.unpaired(
                *((side["actual"] == side["predicted"]).to_numpy() for side in sides)
            )
    with clone(before, after) as folder:
        stale = [stale_stages(folder, tag) for tag in ("before", "after")]
        context = {
            "parameters": tables.changed_parameters(folder),
            "metrics": tables.changed_metrics(folder, result),
            "charts": pictures.charts(folder),
        }
    seeds = [{seed: r.accuracy for seed, r in side.seeds().items()} for side in (before, after)]
    several = all(len(side) > 1 for side in seeds)
    context |= {
        "before": before,
        "after": after,
        "sentence": sentence(result, (len(sides[0]), len(sides[1])))
        if result
        else "The test accuracies cannot be compared: see the warnings.",
        "sentence_over_seeds": sentence_over_seeds(*(list(side.values()) for side in seeds))
        if several
        else "",
        "seeds": seeds if any(len(side) > 1 for side in seeds) else [],
        "warnings": warnings(before, after, stale, matched is not None if result else None),
        "reruns": tables.reruns(before, after),
        "classes": tables.moved_classes(before, after),
        "calibration": pictures.calibration(before, after),
        "curves": {
            name: pictures.curves(before, after, f"validation_{name}")
            for name in ("loss", "accuracy")
        },
        "matrix": [],
        "confusions": [],
        "images": [],
        "no_pictures": "",
    }
    if result:
        classes, cells = tables.confusion(*sides)
        if len(classes) <= CELLS:
            context["matrix"] = tables.matrix(classes, cells, same=matched is not None)
    if matched is not None:
        context["confusions"] = tables.moved_confusions(cells)
        right, wrong, context["no_pictures"] = pictures.disagreements(matched)
        context["images"] = [
            ("Newly right", result.fixed, right),
            ("Newly wrong", result.broken, wrong),
        ]
    return context
