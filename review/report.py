"""Two revisions to one report: what changed, and whether it is more than luck."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from common.console import InputError
from review import bootstrap, history, pictures, significance, tables
from review.current import Check, check_tag
from review.repeats import one_setting_sentence, spread_sentence, what_differs
from review.revision import Revision, accuracies_of, clone
from review.seeds import over_seeds_and_images, right_by_seed
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
    resampled : list of Resampled
        Of the other metrics; empty if the images are not the same.
    """

    before: pd.DataFrame
    after: pd.DataFrame
    matched: pd.DataFrame | None
    comparison: significance.Comparison
    resampled: list[bootstrap.Resampled]


@dataclass(frozen=True)
class Headline:
    """What is read first.

    Attributes
    ----------
    verdict : str
        A sentence on the test accuracy. Of two results of one setting it is no verdict.
    verdict_over_seeds : str
        One on its mean over several seeds; "" if a side has one seed alone.
    warnings : list of str
        Why one should not trust the comparison.
    is_regression : bool
        Whether the accuracy became worse by more than luck: over the seeds if a test over them
        tells, else on the images.
    """

    verdict: str
    verdict_over_seeds: str
    warnings: list[str]
    is_regression: bool


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
    resampled: list[bootstrap.Resampled]
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
    """Compare two revisions; of two results of one setting, there is no verdict."""
    repeat = what_differs(before, after)
    standing = None if repeat else history.standing(before, after)
    scores = compare_scores(before, after, standing)
    seeds = before.seeds(), after.seeds()
    over_seeds = None if repeat else compare_seeds(*seeds, standing)
    accuracies = [
        SeedAccuracies(side, accuracies_of(revisions))
        for side, revisions in zip(("before", "after"), seeds, strict=True)
    ]
    with clone(before, after) as folder:
        checks = [check_tag(folder, tag) for tag in ("before", "after")]
        return Report(
            before=before,
            after=after,
            headline=Headline(
                verdict=verdict_of(scores, standing, repeat),
                verdict_over_seeds=spread_sentence(seeds[1])
                if repeat
                else verdict_over_seeds(over_seeds, accuracies, standing),
                warnings=warnings_of(before, after, scores, checks),
                is_regression=not repeat and is_regression(scores, over_seeds),
            ),
            changes=changes(before, after, folder),
            metrics=metrics(folder, scores, accuracies, is_repeat=bool(repeat)),
            classes=classes(before, after, scores),
            charts=charts(before, after, folder),
            images=images(scores),
        )


def compare_scores(
    before: Revision, after: Revision, standing: history.Standing | None
) -> Scores | None:
    """Compare the predictions of two revisions; return None if one of them has none."""
    if before.predictions is None or after.predictions is None or not common_split(before, after):
        return None
    matched = significance.same_images(before.predictions, after.predictions)
    comparison: significance.Comparison
    if matched is not None:
        comparison = significance.paired(*significance.right_before_and_after(matched))
    else:
        comparison = significance.unpaired(
            (before.predictions["actual"] == before.predictions["predicted"]).to_numpy(),
            (after.predictions["actual"] == after.predictions["predicted"]).to_numpy(),
        )
    if standing is not None:
        comparison = replace(comparison, corrected=standing.corrected(comparison.p_value))
    comparison = replace(comparison, split=common_split(before, after))
    resampled = [] if matched is None else bootstrap.resample(matched)
    return Scores(before.predictions, after.predictions, matched, comparison, resampled)


def compare_seeds(
    before: dict[int, Revision], after: dict[int, Revision], standing: history.Standing | None
) -> significance.Comparison | None:
    """Compare the seeds of two settings; return None if one of them has fewer than two.

    Where all of them scored the same images, the test uses that. Else it is Welch's, of the
    accuracies alone.
    """
    first = [next(iter(side.values())) for side in (before, after) if side]
    if min(len(before), len(after)) < 2 or not common_split(*first):
        return None
    right = None
    # A seed whose predictions cannot be read still has its accuracy.
    with suppress(InputError):
        predictions = [
            [seed.predictions for seed in side.values() if seed.predictions is not None]
            for side in (before, after)
        ]
        if [len(side) for side in predictions] == [len(before), len(after)]:
            right = right_by_seed(*predictions)
    if right is not None:
        comparison = over_seeds_and_images(*right, same_seeds=before.keys() == after.keys())
    else:
        comparison = significance.over_seeds(
            *(list(accuracies_of(side).values()) for side in (before, after))
        )
    if standing is not None:
        comparison = replace(comparison, corrected=standing.corrected_alone(comparison.p_value))
    return replace(comparison, split=common_split(*first))


def common_split(before: Revision, after: Revision) -> str:
    """Return which images two revisions were scored on; "" if it is not the same split."""
    return before.split if before.split == after.split else ""


def verdict_of(scores: Scores | None, standing: history.Standing | None, repeat: str | None) -> str:
    """Return the sentence on the test accuracy."""
    if scores is None:
        return "The accuracies cannot be compared: see the warnings."
    counts = len(scores.before), len(scores.after)
    if repeat:
        return one_setting_sentence(repeat, scores.comparison, *counts)
    return verdict_sentence(scores.comparison, *counts, standing)


def verdict_over_seeds(
    comparison: significance.Comparison | None,
    seeds: list[SeedAccuracies],
    standing: history.Standing | None,
) -> str:
    """Return the sentence on the mean test accuracy over several seeds, or ""."""
    if comparison is None:
        return ""
    seeds_before, seeds_after = (len(side.by_seed) for side in seeds)
    return seeds_sentence(comparison, seeds_before, seeds_after, standing)


def is_regression(scores: Scores | None, over_seeds: significance.Comparison | None) -> bool:
    """Return whether the accuracy became worse by more than luck; the seeds count first."""
    if over_seeds is not None and over_seeds.verdict != "no test can tell it from noise":
        return over_seeds.verdict == "a regression"
    return scores is not None and scores.comparison.verdict == "a regression"


def warnings_of(
    before: Revision, after: Revision, scores: Scores | None, checks: list[Check]
) -> list[str]:
    """Return why one should not trust the comparison.

    Parameters
    ----------
    before, after : Revision
        The two sides.
    scores : Scores or None
        Their predictions.
    checks : list of Check
        Whether the results of each belong to its code: before, after.
    """
    other_test_images = scores is not None and scores.matched is None
    return [
        *warnings_about(before, checks[0]),
        *warnings_about(after, checks[1]),
        *warnings_about_both(before, after, other_test_images),
    ]


def changes(before: Revision, after: Revision, folder: Path) -> Changes:
    """Return what changed: parameters, and the stages that ran again."""
    return Changes(tables.changed_parameters(folder), tables.changed_stages(before, after))


def metrics(
    folder: Path, scores: Scores | None, seeds: list[SeedAccuracies], is_repeat: bool
) -> Metrics:
    """Return the metrics, and the accuracies by seed if a side has several.

    No test is asked about two results of one setting.
    """
    several = any(len(side.by_seed) > 1 for side in seeds)
    comparison, resampled = None, []
    if scores is not None and not is_repeat:
        comparison, resampled = scores.comparison, scores.resampled
    rows = tables.metrics(folder, comparison, resampled)
    if is_repeat:
        rows = [replace(row, significance=row.significance and "one setting: luck") for row in rows]
    return Metrics(rows, resampled, seeds if several else [])


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
