"""Two revisions to one report: what changed, and whether it is more than luck."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from review import pictures, significance, tables
from review.current import Check, check_tag
from review.revision import Revision, clone
from review.sentences import (
    seeds_sentence,
    verdict_sentence,
    warnings_about,
    warnings_about_both,
)

MATRIX_CLASSES = 12  # up to which a confusion matrix is shown as a table


@dataclass(frozen=True)
class Scores:
    """What the two models said of the test images.

    Attributes
    ----------
    before, after : DataFrame
        The predictions.
    matched : DataFrame or None
        From `significance.same_images`: both predictions for each image.
    comparison : Comparison
        Of the accuracies; a `PairedComparison` if the images are the same.
    """

    before: pd.DataFrame
    after: pd.DataFrame
    matched: pd.DataFrame | None
    comparison: significance.Comparison


@dataclass(frozen=True)
class Headline:
    """What is read first.

    Attributes
    ----------
    verdict : str
        A sentence on the test accuracy.
    verdict_over_seeds : str
        One on its mean over several seeds; "" if a side has one seed alone.
    warnings : list of str
        Why one should not trust the comparison.
    """

    verdict: str
    verdict_over_seeds: str
    warnings: list[str]


@dataclass(frozen=True)
class Changes:
    """The section "What changed"."""

    parameters: list[tables.ParameterChange]
    stages: list[tables.StageChange]


@dataclass(frozen=True)
class SeedAccuracies:
    """The test accuracies of one side, by seed."""

    side: str
    by_seed: dict[int, float]

    @property
    def mean(self) -> float | None:
        """Their mean; None if there are none."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else None

    @property
    def deviation(self) -> float | None:
        """Their standard deviation; None if there are fewer than two."""
        if len(self.by_seed) < 2:
            return None
        return float(np.std(list(self.by_seed.values()), ddof=1))


@dataclass(frozen=True)
class Metrics:
    """The section "Metrics". `seeds` is empty if no side has several seeds."""

    rows: list[tables.MetricChange]
    seeds: list[SeedAccuracies]


@dataclass(frozen=True)
class Classes:
    """The section "Classes".

    Attributes
    ----------
    changes : list of ClassChange
        Precision and recall, the classes that changed most first.
    matrix : list of MatrixRow
        The confusion matrix; empty if there are more than `MATRIX_CLASSES`.
    confusions : list of ConfusionChange
        Those that changed most; empty if the test images are not the same.
    same_images : bool
        Whether both scored the same test images.
    """

    changes: list[tables.ClassChange]
    matrix: list[tables.MatrixRow]
    confusions: list[tables.ConfusionChange]
    same_images: bool


@dataclass(frozen=True)
class Charts:
    """The section "Charts", which is "Training" in Markdown."""

    plots: list[pictures.Chart]
    curves: list[pictures.Curve]
    calibration: list[pictures.CalibrationBin]


@dataclass(frozen=True)
class Images:
    """The section "Images".

    Attributes
    ----------
    disagreements : list of Disagreement
        Images newly right and newly wrong; empty if the test images are not the same.
    no_pixels : str
        Why they have no pixels, or "".
    """

    disagreements: list[pictures.Disagreement]
    no_pixels: str


@dataclass(frozen=True)
class Report:
    """All that the templates show, a field for each section."""

    before: Revision
    after: Revision
    headline: Headline
    changes: Changes
    metrics: Metrics
    classes: Classes
    charts: Charts
    images: Images


def compare(before: Revision, after: Revision) -> Report:
    """Compare two revisions."""
    scores = compare_scores(before, after)
    seeds = [
        SeedAccuracies("before", before.accuracies_by_seed()),
        SeedAccuracies("after", after.accuracies_by_seed()),
    ]
    with clone(before, after) as folder:
        checks = [check_tag(folder, tag) for tag in ("before", "after")]
        return Report(
            before=before,
            after=after,
            headline=headline(before, after, scores, seeds, checks),
            changes=changes(before, after, folder),
            metrics=metrics(folder, scores, seeds),
            classes=classes(before, after, scores),
            charts=charts(before, after, folder),
            images=images(scores),
        )


def compare_scores(before: Revision, after: Revision) -> Scores | None:
    """Compare the predictions of two revisions; return None if one of them has none."""
    if before.predictions is None or after.predictions is None:
        return None
    matched = significance.same_images(before.predictions, after.predictions)
    comparison: significance.Comparison
    if matched is not None:
        comparison = significance.paired(
            (matched["predicted_before"] == matched["actual"]).to_numpy(),
            (matched["predicted_after"] == matched["actual"]).to_numpy(),
        )
    else:
        comparison = significance.unpaired(
            (before.predictions["actual"] == before.predictions["predicted"]).to_numpy(),
            (after.predictions["actual"] == after.predictions["predicted"]).to_numpy(),
        )
    return Scores(before.predictions, after.predictions, matched, comparison)


def headline(
    before: Revision,
    after: Revision,
    scores: Scores | None,
    seeds: list[SeedAccuracies],
    checks: list[Check],
) -> Headline:
    """Return what is read first.

    Parameters
    ----------
    before, after : Revision
        The two sides.
    scores : Scores or None
        Their predictions.
    seeds : list of SeedAccuracies
        Before, after.
    checks : list of Check
        Whether the results of each belong to its code: before, after.
    """
    verdict = "The test accuracies cannot be compared: see the warnings."
    if scores is not None:
        verdict = verdict_sentence(scores.comparison, len(scores.before), len(scores.after))
    verdict_over_seeds = ""
    accuracies_before, accuracies_after = (list(side.by_seed.values()) for side in seeds)
    if len(accuracies_before) > 1 and len(accuracies_after) > 1:
        comparison = significance.over_seeds(accuracies_before, accuracies_after)
        verdict_over_seeds = seeds_sentence(
            comparison, len(accuracies_before), len(accuracies_after)
        )
    other_test_images = scores is not None and scores.matched is None
    warnings = [
        *warnings_about(before, checks[0]),
        *warnings_about(after, checks[1]),
        *warnings_about_both(before, after, other_test_images),
    ]
    return Headline(verdict, verdict_over_seeds, warnings)


def changes(before: Revision, after: Revision, folder: Path) -> Changes:
    """Return what changed: parameters, and the stages that ran again."""
    return Changes(tables.changed_parameters(folder), tables.changed_stages(before, after))


def metrics(folder: Path, scores: Scores | None, seeds: list[SeedAccuracies]) -> Metrics:
    """Return the metrics, and the accuracies by seed if a side has several."""
    several = any(len(side.by_seed) > 1 for side in seeds)
    comparison = None if scores is None else scores.comparison
    return Metrics(tables.metrics(folder, comparison), seeds if several else [])


def classes(before: Revision, after: Revision, scores: Scores | None) -> Classes:
    """Return what became of the classes and of the confusions between them."""
    class_changes = tables.changed_classes(before, after)
    if scores is None:
        return Classes(class_changes, [], [], same_images=False)
    same_images = scores.matched is not None
    counts = tables.count_confusions(scores.before, scores.after)
    names = tables.class_names(counts)
    is_small = len(names) <= MATRIX_CLASSES
    return Classes(
        changes=class_changes,
        matrix=tables.confusion_matrix(names, counts, same_images) if is_small else [],
        confusions=tables.changed_confusions(counts) if same_images else [],
        same_images=same_images,
    )


def charts(before: Revision, after: Revision, folder: Path) -> Charts:
    """Return DVC's plots, the curves of the training and the calibration."""
    curves = [pictures.curve(before, after, name) for name in ("loss", "accuracy")]
    return Charts(
        plots=pictures.charts(folder),
        curves=[curve for curve in curves if curve is not None],
        calibration=pictures.calibration(before, after),
    )


def images(scores: Scores | None) -> Images:
    """Return the images that are newly right or newly wrong."""
    if scores is None or scores.matched is None:
        return Images([], "")
    return Images(*pictures.disagreements(scores.matched))
