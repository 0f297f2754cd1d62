"""What differs between two revisions, as rows of tables."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from review.bootstrap import Resampled
from review.revision import PROVENANCE, Revision, read_dvc_json
from review.significance import Comparison, PairedComparison, probability

HIGHER_IS_BETTER = ("accuracy", "f1")
LOWER_IS_BETTER = ("loss", "errors", "error")
TESTED = (
    "test_accuracy",
    "validation_accuracy",
    "errors",
)  # the metrics of which the test of the accuracies tells
BOUNDS = ("_accuracy_low", "_accuracy_high")  # of an interval: no test asks for them
CONFUSIONS = 20  # that are listed, at most


@dataclass(frozen=True)
class ParameterChange:
    """A parameter whose value differs."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class StageChange:
    """A stage that ran again, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class MetricChange:
    """A metric, changed or not.

    Attributes
    ----------
    name, before, after, change : str
        As they are shown.
    direction : str
        "better", "worse" or "same"; "" if the name of the metric does not tell.
    significance : str
        Test and p value, "not known", or "" if the question does not arise.
    """

    name: str
    before: str
    after: str
    change: str
    direction: str
    significance: str


@dataclass(frozen=True)
class ClassChange:
    """Precision and recall of a class, from 0 to 1, or NaN if a revision has none."""

    name: str
    precision_before: float
    precision_after: float
    recall_before: float
    recall_after: float

    @property
    def precision_change(self) -> float:
        """By how much the precision rose."""
        return self.precision_after - self.precision_before

    @property
    def recall_change(self) -> float:
        """By how much the recall rose."""
        return self.recall_after - self.recall_before


@dataclass(frozen=True)
class ConfusionChange:
    """How many images of one class were taken for another class."""

    actual: str
    predicted: str
    before: int
    after: int

    @property
    def change(self) -> int:
        """By how many images the confusion grew."""
        return self.after - self.before


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Attributes
    ----------
    before, after : int
        Number of images.
    gain : int
        By how many images the cell changed for the better; 0 if the two revisions did not
        score the same images.
    """

    before: int
    after: int
    gain: int


@dataclass(frozen=True)
class MatrixRow:
    """A row of the confusion matrix: the images of one class, by predicted class."""

    actual: str
    cells: list[Cell]


def as_text(value: object) -> str:
    """Write a value for people, a number with five significant digits.

    Examples
    --------
    >>> as_text(0.97949999), as_text(10), as_text(None), as_text([8, 16])
    ('0.9795', '10', '-', '[8, 16]')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value)


def changed_parameters(folder: Path) -> list[ParameterChange]:
    """Return the parameters that differ between the two tags of a clone, as DVC finds them."""
    files = read_dvc_json(folder, "params", "diff", "before", "after")
    return [
        ParameterChange(name, as_text(values.get("old")), as_text(values.get("new")))
        for _, parameters in sorted(files.items())
        for name, values in sorted(parameters.items())
    ]


def direction(name: str, change: float) -> str:
    """Say whether a change of a metric is for the better, as far as its name tells.

    Examples
    --------
    >>> direction("test_accuracy", 0.01), direction("test_loss", 0.01), direction("images", 1)
    ('better', 'worse', '')
    """
    if not change:
        return "same"
    if not math.isfinite(change):
        return ""
    if name.endswith(HIGHER_IS_BETTER + BOUNDS):
        return "better" if change > 0 else "worse"
    if name.endswith(LOWER_IS_BETTER):
        return "better" if change < 0 else "worse"
    return ""


def metrics(
    folder: Path, comparison: Comparison | None, resampled: list[Resampled]
) -> list[MetricChange]:
    """Return all metrics of the two tags of a clone as DVC finds them, the unchanged ones too.

    Parameters
    ----------
    folder : Path
        From `review.revision.clone`.
    comparison : Comparison or None
        Of the test accuracies. It tells the significance of their difference, and of that of
        the errors.
    resampled : list of Resampled
        The other metrics of the predictions, as far as the bootstrap tells their significance.
    """
    p_values = {other.name: other.p_value for other in resampled}
    files = read_dvc_json(folder, "metrics", "diff", "before", "after", "--all")
    return [
        metric(path, name, values, comparison, p_values)
        for path, metrics_of_file in sorted(files.items())
        if path != PROVENANCE  # it is no measure of the model; a warning tells where it differs
        for name, values in sorted(metrics_of_file.items())
    ]


def metric(
    path: str,
    name: str,
    values: dict[str, Any],
    comparison: Comparison | None,
    p_values: dict[str, float],
) -> MetricChange:
    """Return the row of one metric.

    Parameters
    ----------
    path, name : str
        Its file and its name.
    values : dict
        From `dvc metrics diff`: ``old``, ``new`` and ``diff``, if they are known.
    comparison : Comparison or None
        As for `metrics`.
    p_values : dict of str to float
        Of the bootstrap, by the name of the metric.
    """
    difference = values.get("diff")
    change = better = significance = ""
    if difference is not None:
        change = f"{difference:+.5g}"
        better = direction(name, difference)
    if better in ("better", "worse"):
        significance = "not known"
    is_of_test = path == "metrics/evaluate.json"
    if is_of_test and name.endswith(BOUNDS):
        significance = ""
    resampled = name.replace("validation_", "test_")  # whichever images were scored
    if is_of_test and resampled in p_values:
        significance = f"paired bootstrap, {probability(p_values[resampled])}"
    if is_of_test and name in TESTED and comparison:
        significance = f"{comparison.test}, {probability(comparison.p_value)}"
        if name == "errors" and not isinstance(comparison, PairedComparison):
            better = significance = ""  # they are errors among another number of images
    return MetricChange(
        name=f"{Path(path).stem}: {name}",
        before=as_text(values.get("old")),
        after=as_text(values.get("new")),
        change=change,
        direction=better,
        significance=significance,
    )


def changed_stages(before: Revision, after: Revision) -> list[StageChange]:
    """Return the stages that differ in dvc.lock, and why: command, code, parameters or data."""
    changes = []
    for name in dict.fromkeys([*before.stages, *after.stages]):
        old, new = before.stages.get(name), after.stages.get(name)
        if old is None:
            changes.append(StageChange(name, "new stage"))
        elif new is None:
            changes.append(StageChange(name, "removed"))
        elif old != new:
            changes.append(StageChange(name, reason(old, new)))
    return changes


def reason(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Say what changed of all that a stage depends on.

    Parameters
    ----------
    old, new : dict
        The stage in dvc.lock.
    """
    reasons = ["command"] if old.get("cmd") != new.get("cmd") else []
    dependencies = differing(dependency_hashes(old), dependency_hashes(new))
    changes = {
        "code": [path for path in dependencies if path.endswith(".py")],
        "parameters": differing(parameters(old), parameters(new)),
        "data": [path for path in dependencies if not path.endswith(".py")],
    }
    reasons += [f"{kind}: {', '.join(names)}" for kind, names in changes.items() if names]
    return "; ".join(reasons) or "the same inputs, other outputs"


def dependency_hashes(stage: dict[str, Any]) -> dict[str, object]:
    """Return the hash of each file that a stage reads, by its path."""
    return {entry["path"]: entry.get("md5") for entry in stage.get("deps", [])}


def parameters(stage: dict[str, Any]) -> dict[str, object]:
    """Return a stage's parameters by name."""
    files = stage.get("params", {}).values()
    return {name: value for values in files for name, value in values.items()}


def differing(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Return the keys whose values differ, or that only one of the two has.

    Examples
    --------
    >>> differing({"epochs": 5, "seed": 42}, {"epochs": 10, "seed": 42, "ema": 0.9})
    ['epochs', 'ema']
    """
    return [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]


def changed_classes(before: Revision, after: Revision) -> list[ClassChange]:
    """Return precision and recall of the classes, those that changed most first."""
    columns = ["class", "precision", "recall"]
    table_before = before.table("plots/per_class.csv", columns)
    table_after = after.table("plots/per_class.csv", columns)
    if table_before is None or table_after is None:
        return []
    both = table_before[columns].merge(
        table_after[columns], on="class", suffixes=("_before", "_after")
    )
    for column in both.columns[1:]:
        both[column] = pd.to_numeric(both[column], errors="coerce")
    changes = pd.DataFrame(
        {name: both[f"{name}_after"] - both[f"{name}_before"] for name in ("precision", "recall")}
    )
    order = changes.abs().max(axis=1).sort_values(ascending=False).index
    both = both.rename(columns={"class": "name"}).loc[order]
    return [ClassChange(**values) for values in both.to_dict("records")]


def count_confusions(before: pd.DataFrame, after: pd.DataFrame) -> list[ConfusionChange]:
    """Count the images of each pair of actual and predicted class that occurs.

    Parameters
    ----------
    before, after : DataFrame
        Predictions.
    """
    counts = [side.value_counts(["actual", "predicted"]) for side in (before, after)]
    table = pd.concat(counts, axis=1, keys=["before", "after"]).fillna(0).astype(int).reset_index()
    return [ConfusionChange(**values) for values in table.to_dict("records")]


def class_names(counts: list[ConfusionChange]) -> list[str]:
    """Return the classes that occur, actual or predicted, in order."""
    return sorted({name for count in counts for name in (count.actual, count.predicted)})


def confusion_matrix(
    names: list[str], counts: list[ConfusionChange], same_images: bool
) -> list[MatrixRow]:
    """Return the rows of the confusion matrix.

    Parameters
    ----------
    names : list of str
        The classes, from `class_names`.
    counts : list of ConfusionChange
        From `count_confusions`.
    same_images : bool
        Whether the images are the same before and after, so that a difference of their
        numbers is a gain or a loss.
    """
    count_of = {(count.actual, count.predicted): count for count in counts}
    rows = []
    for actual in names:
        cells = []
        for predicted in names:
            none = ConfusionChange(actual, predicted, 0, 0)
            count = count_of.get((actual, predicted), none)
            gain = 0
            if same_images:
                gain = count.change if actual == predicted else -count.change
            cells.append(Cell(count.before, count.after, gain))
        rows.append(MatrixRow(actual, cells))
    return rows


def changed_confusions(counts: list[ConfusionChange]) -> list[ConfusionChange]:
    """Return the confusions whose number of images changed most."""
    confusions = [count for count in counts if count.actual != count.predicted and count.change]
    return sorted(confusions, key=lambda count: -abs(count.change))[:CONFUSIONS]
