"""The recipes and their results in Markdown: a table, and sentences that compare neighbours."""

import json
import math

import pandas as pd
from scipy import stats

from review.significance import Comparison, over_seeds, probability

HEADER = [
    "| recipe | weights | training | test accuracy | 95% interval of the mean | errors of "
    "10,000, by seed from 42 | command |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def recipe_table(results: pd.DataFrame) -> str:
    """Return the table of the recipes and, below it, the comparisons of neighbours.

    Parameters
    ----------
    results : DataFrame
        The rows of results.csv: one a run.

    Returns
    -------
    str
        Markdown. The most accurate recipe comes last.
    """
    means = results.groupby("recipe")["test_accuracy"].mean().sort_values()
    runs_of = {
        str(recipe): results[results["recipe"] == recipe].sort_values("seed")
        for recipe in means.index
    }
    rows = [table_row(recipe, runs) for recipe, runs in runs_of.items()]
    sentences = comparisons(runs_of)
    paragraphs = ["\n".join([*HEADER, *rows])]
    if sentences:
        paragraphs.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(paragraphs) + "\n"


def table_row(recipe: str, runs: pd.DataFrame) -> str:
    """Return the row of a recipe.

    The training time is the mean of its runs. The accuracy is their mean and, behind ±, their
    standard deviation.
    """
    cells = [
        f"`{recipe}`",
        f"{runs['parameters'].iloc[0]:,}",
        f"{runs['train_seconds'].mean():.0f} s",
        mean_and_deviation(100 * runs["test_accuracy"]),
        interval_of_mean(100 * runs["test_accuracy"]),
        ", ".join(map(str, runs["errors"])),
        f"`make recipe NAME={recipe}`",
    ]
    return f"| {' | '.join(cells)} |"


def mean_and_deviation(percentages: pd.Series) -> str:
    """Return the mean and, if there are several values, their standard deviation.

    Examples
    --------
    >>> mean_and_deviation(pd.Series([99.0, 99.2]))
    '99.100% ± 0.141'
    >>> mean_and_deviation(pd.Series([99.0]))
    '99.000%'
    """
    mean = f"{percentages.mean():.3f}%"
    return mean if len(percentages) == 1 else f"{mean} ± {percentages.std():.3f}"


def interval_of_mean(percentages: pd.Series) -> str:
    """Return the 95% interval of the mean by Student's t, or "-" where nothing varies.

    Examples
    --------
    >>> interval_of_mean(pd.Series([99.0, 99.2]))
    '97.829% to 100.371%'
    >>> interval_of_mean(pd.Series([99.0]))
    '-'
    """
    if percentages.nunique() == 1:
        return "-"
    error = stats.sem(percentages)
    low, high = stats.t.interval(0.95, len(percentages) - 1, percentages.mean(), error)
    return f"{low:.3f}% to {high:.3f}%"


def comparisons(runs_of: dict[str, pd.DataFrame]) -> list[str]:
    """Return a sentence for each recipe that follows another one on the same data set.

    Parameters
    ----------
    runs_of : dict of str to DataFrame
        The runs of each recipe, the most accurate recipe last.
    """
    latest_on: dict[str | None, str] = {}
    sentences = []
    for recipe, runs in runs_of.items():
        dataset = json.loads(runs["settings"].iloc[0]).get("dataset")
        if dataset in latest_on:
            other = latest_on[dataset]
            sentences.append(f"`{recipe}` against `{other}`: {difference(runs_of[other], runs)}.")
        latest_on[dataset] = recipe
    return sentences


def difference(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Say by how much the runs of one recipe are more accurate than those of another, and faster.

    Parameters
    ----------
    before, after : DataFrame
        The runs of each. Accuracies are compared by Welch's t test.
    """
    comparison = over_seeds(before["test_accuracy"].tolist(), after["test_accuracy"].tolist())
    points = f"{100 * (comparison.after - comparison.before):+.2f} points"
    ratio = after["train_seconds"].mean() / before["train_seconds"].mean()
    return f"{points}, {verdict(comparison)}; {relative_time(ratio)}"


def verdict(comparison: Comparison) -> str:
    """Say whether a recipe that has the higher accuracy has it by more than luck."""
    said = "more accurate" if comparison.verdict == "an improvement" else comparison.verdict
    if math.isnan(comparison.p_value):
        return said
    return f"{probability(comparison.p_value)}, {said}"


def relative_time(ratio: float) -> str:
    """Say how a training time compares with another, of which it is `ratio` times as long.

    Examples
    --------
    >>> relative_time(0.5)
    '2.0 times as fast'
    >>> relative_time(36.2)
    'takes 36 times as long'
    """
    if 0.95 < ratio < 1.05:
        return "takes as long"
    if ratio < 1:
        return f"{rounded(1 / ratio)} times as fast"
    return f"takes {rounded(ratio)} times as long"


def rounded(ratio: float) -> str:
    """Return a ratio with two digits or more: 6.6, 36."""
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"
