"""Search better settings: `make search SPACE=spaces/default.yaml TRIALS=30`.

Each trial is a DVC experiment, judged by the validation images alone. What was interrupted goes
on where it was, by the same command.
"""

import argparse

from common.console import importing, run
from review.git import check_place
from runs.commands import whole_number
from runs.committed import check_tree

OPTIONS = ("space", "trials", "name", "seeds", "fresh", "jobs", "metric", "sampler", "storage")


def main() -> None:
    """Check what takes a moment to check, then search."""
    parser = argparse.ArgumentParser(prog="make search", description=__doc__.splitlines()[0])
    for option in OPTIONS:
        parser.add_argument(f"--{option}", default="")
    arguments = parser.parse_args()
    trials = whole_number("TRIALS", arguments.trials, 1, 1_000_000)
    jobs = whole_number("JOBS", arguments.jobs, 1, 1000)
    check_place()
    check_tree()
    with importing("search"):  # it takes two seconds: DVC and Optuna
        from search.running import run_search

    run_search(arguments, trials, jobs)


if __name__ == "__main__":
    run("search", main)
