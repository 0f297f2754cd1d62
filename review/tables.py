"""What differs between two revisions, as rows of tables."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from review.revision import Revision, dvc
from review.significance import Comparison, PairedComparison, probability

HIGHER_IS_BETTER = ("accuracy", "f1")
LOWER_IS_BETTER = ("loss", "errors", "error")
TESTED = ("test_accuracy", "errors")  # whose significance the test of the accuracies tells
MOVED = 20  # confusions that are listed


@dataclass(frozen=True)
class Row:
    """One line of a table of changes."""

    name: str
    before: str
    after: str
    change: str = ""
    direction: str = ""
    note: str = ""


def number(value: object) -> str:
    """Write a value for people: five significant digits, as `dvc metrics diff` does."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value)


def changed_parameters(folder: Path) -> list[Row]:
    """Return the parameters that differ, as `dvc params diff` gives them."""
    changes = json.loads(dvc(folder, "params", "diff", "before", "after", "--json") or "{}")
    return [
        Row(name, number(values.get("old")), number(values.get("new")))
        for _, parameters in sorted(changes.items())
        for name, values in sorted(parameters.items())
    ]


def direction(name: str, change: float) -> str:
    """Say whether a change of a metric is for the better, as far as its name tells."""
    if not change:
        return "same"
    if not math.isfinite(change):
        return ""
    if name.endswith(HIGHER_IS_BETTER) or name.startswith("test_accuracy"):
        return "better" if change > 0 else "worse"
    if name.endswith(LOWER_IS_BETTER):
        return "better" if change < 0 else "worse"
    return ""


def changed_metrics(folder: Path, result: Comparison | None) -> list[Row]:
    """Return the metrics as `dvc metrics diff` gives them, the unchanged ones too.

    Parameters
    ----------
    folder : Path
        From `revision.clone`.
    result : Comparison or None
        Of the test accuracies: what tells its significance, and that of the errors.
    """
    printed = dvc(folder, "metrics", "diff", "before", "after", "--json", "--all")
    rows = []
    for path, metrics in sorted(json.loads(printed or "{}").items()):
        for name, values in sorted(metrics.items()):
            change = values.get("diff")
            better = "" if change is None else direction(name, change)
            note = "not known" if better in ("better", "worse") else ""
            if result and path == "metrics/evaluate.json" and name in TESTED:
                note = f"{result.test} {probability(result.p_value)}"
                if name == "errors" and not isinstance(result, PairedComparison):
                    better = note = ""  # of more images, or fewer
            texts = number(values.get("old")), number(values.get("new"))
            change = "" if change is None else f"{change:+.5g}"
            rows.append(Row(f"{Path(path).stem}: {name}", *texts, change, better, note))
    return rows


def reruns(before: Revision, after: Revision) -> list[Row]:
    """Return the stages whose lock differs, and why: code, parameters or data.

    Returns
    -------
    list of Row
        Name of the stage; ``note`` is what changed of all that it depends on.
    """
    rows = []
    for name in dict.fromkeys([*before.stages, *after.stages]):
        old, new = before.stages.get(name), after.stages.get(name)
        if old == new:
            continue
        if old is None or new is None:
            rows.append(Row(name, "", "", note="new stage" if old is None else "removed"))
            continue
        reasons = []
        if old.get("cmd") != new.get("cmd"):
            reasons.append("command")
        deps = differing(hashes(old, "deps"), hashes(new, "deps"))
        code = [path for path in deps if path.endswith(".py")]
        data = [path for path in deps if not path.endswith(".py")]
        for kind, names in (
            ("code", code),
            ("parameters", differing(parameters(old), parameters(new))),
            ("data", data),
        ):
            if names:
                reasons.append(f"{kind}: {', '.join(names)}")
        rows.append(Row(name, "", "", note="; ".join(reasons) or "the same inputs, other outputs"))
    return rows


def hashes(stage: dict, kind: str) -> dict[str, object]:
    """Return the hash of each of a stage's ``deps`` or ``outs``."""
    return {entry["path"]: entry.get("md5") for entry in stage.get(kind, [])}


def parameters(stage: dict) -> dict[str, object]:
    """Return a stage's parameters by name."""
    return {key: v for values in stage.get("params", {}).values() for key, v in values.items()}


def differing(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Return the keys whose values differ, or that one of the two lacks."""
    return [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]


def moved_classes(before: Revision, after: Revision) -> list[dict]:
    """Return precision and recall of the classes, those that moved most first."""
    columns = ["class", "precision", "recall"]
    tables = [side.table("plots/per_class.csv", columns) for side in (before, after)]
    if any(table is None for table in tables):
        return []
    both = tables[0][columns].merge(tables[1][columns], on="class", suffixes=("_before", "_after"))
    for column in both.columns[1:]:
        both[column] = pd.to_numeric(both[column], errors="coerce")
    for name in ("precision", "recall"):
        both[name] = both[f"{name}_after"] - both[f"{name}_before"]
    order = both[["precision", "recall"]].abs().max(axis=1).sort_values(ascending=False).index
    return both.loc[order].to_dict("records")


def confusion(before: pd.DataFrame, after: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Count actual against predicted class, before and after.

    Returns
    -------
    classes : list of str
        The classes that occur.
    cells : DataFrame
        A row a pair of classes that occurs: ``actual``, ``predicted``, ``before``, ``after``.
    """
    key = ["actual", "predicted"]
    counts = [side.value_counts(key) for side in (before, after)]
    cells = pd.concat(counts, axis=1, keys=["before", "after"]).fillna(0).astype(int).reset_index()
    return sorted(set(cells["actual"]) | set(cells["predicted"])), cells


def matrix(classes: list[str], cells: pd.DataFrame, same: bool) -> list[tuple[str, list[dict]]]:
    """Return the rows of the confusion matrix: actual class, and a cell a predicted class.

    Parameters
    ----------
    classes : list of str
        From `confusion`.
    cells : DataFrame
        From `confusion`.
    same : bool
        Whether the images are the same before and after: whether a difference of their
        numbers is a gain or a loss.
    """
    found = {
        (c["actual"], c["predicted"]): (c["before"], c["after"]) for c in cells.to_dict("records")
    }
    rows = []
    for actual in classes:
        row = []
        for predicted in classes:
            before, after = found.get((actual, predicted), (0, 0))
            gain = after - before if actual == predicted else before - after
            row.append({"before": before, "after": after, "gain": gain if same else 0})
        rows.append((actual, row))
    return rows


def moved_confusions(cells: pd.DataFrame) -> list[dict]:
    """Return the confusions whose number of images changed most."""
    cells = cells.assign(change=cells["after"] - cells["before"])
    cells = cells[(cells["actual"] != cells["predicted"]) & (cells["change"] != 0)]
    order = cells["change"].abs().sort_values(ascending=False, kind="stable").index
    return cells.loc[order].head(MOVED).to_dict("records")
