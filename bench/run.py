"""Measure this project against what its users would run instead, on the real data: `make bench`.

    python -m bench.run [ROW ...]

All rows are measured if none is named. The two sides of a row run in turn. The table holds the
medians of both sides and of the ratio of each pair. It is printed and, if all rows were measured,
written into docs/benchmark.md.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.commands import ROOT, Figures
from bench.folders import Folders, prepare_folders
from bench.pages import measured_text, table, write_measured
from bench.rows import ROWS, Row
from common.console import InputError, run

PAGE = ROOT / "docs" / "benchmark.md"
COMMAND = "make bench"
HEADER = ["#", "what", "this project", "the other", "ratio", "goal", ""]


def measure(row: Row, folders: Folders) -> list[tuple[Figures, Figures]]:
    """Measure both sides of a row in turn; return the figures of each pair."""
    pairs = []
    for number in range(1, row.runs + 1):
        ours, theirs = row.ours(folders, number), row.theirs(folders, number)
        print(f"  {number}/{row.runs}: {ours[row.unit]:,.2f}  {theirs[row.unit]:,.2f}", flush=True)
        pairs.append((ours, theirs))
    return pairs


def cells_of(name: str, row: Row, pairs: list[tuple[Figures, Figures]]) -> list[str]:
    """Return the cells of a row of the table."""
    ours = statistics.median(ours[row.unit] for ours, _ in pairs)
    theirs = statistics.median(theirs[row.unit] for _, theirs in pairs)
    ratio = statistics.median(ours[row.unit] / theirs[row.unit] for ours, theirs in pairs)
    verdict = "met" if is_met(row.goal, ratio) else "missed"
    return [name, row.title, f"{ours:,.2f}", f"{theirs:,.2f}", f"{ratio:.3g}", row.goal, verdict]


def is_met(goal: str, ratio: float) -> bool:
    """Return whether a ratio meets a goal.

    Examples
    --------
    >>> is_met(">= 20", 10.6), is_met("<= 1.0", 0.87)
    (False, True)
    """
    sign, limit = goal.split()
    return ratio >= float(limit) if sign == ">=" else ratio <= float(limit)


def accuracies(name: str, pairs: list[tuple[Figures, Figures]]) -> list[str]:
    """Return a line for each side of a row that trained to an accuracy: all of them, the mean."""
    lines = []
    for side, figures in zip(("ours", "theirs"), zip(*pairs, strict=True), strict=True):
        if "test_accuracy" in figures[0]:
            values = [run_figures["test_accuracy"] for run_figures in figures]
            listed = ", ".join(f"{value:.2%}" for value in values)
            lines.append(f"Row {name}, {side}: {listed}; mean {statistics.mean(values):.3%}.")
    return lines


def main() -> None:
    """Measure the rows that are asked for; print them, and write the page if they are all."""
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__.splitlines()[0])
    parser.add_argument("rows", metavar="ROW", nargs="*", help=", ".join(ROWS))
    names = parser.parse_args().rows or list(ROWS)
    for name in names:
        if name not in ROWS:
            raise InputError(f"ROW is {name!r}; it must be one of {', '.join(ROWS)}")
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as temporary:
        print("bench: preparing", flush=True)
        folders = prepare_folders(Path(temporary))
        for name in names:
            print(f"{name}: {ROWS[name].title}", flush=True)
            pairs = measure(ROWS[name], folders)
            rows.append(cells_of(name, ROWS[name], pairs))
            lines += accuracies(name, pairs)
    text = measured_text(COMMAND, table(HEADER, rows), *lines)
    print(text)
    if names == list(ROWS):
        write_measured(PAGE, COMMAND, text)


if __name__ == "__main__":
    run("bench", main)
