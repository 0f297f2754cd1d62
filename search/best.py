"""Apply the best experiment, and run it on the test images once: `make best METRIC=errors`.

    python -m search.best --name=NAME --metric=METRIC --recipe=RECIPE

NAME is a search; without it all experiments count that were judged on the images which the
committed parameters choose. METRIC is a number of metrics/; without it, it is that by which the
search judges, or validation_accuracy. RECIPE names a file in recipes/ that gets the parameters.
"""

import argparse

from common.console import importing, run
from review.git import check_place
from runs.committed import check_tree


def main() -> None:
    """Check what takes a moment to check, then choose and apply."""
    parser = argparse.ArgumentParser(prog="make best", description=__doc__.splitlines()[0])
    for option in ("name", "metric", "recipe"):
        parser.add_argument(f"--{option}", default="")
    asked = parser.parse_args()
    check_place()
    check_tree()
    with importing("best"):  # it takes two seconds: pandas and DVC
        from search.choosing import apply_best

    apply_best(asked.name, asked.metric, asked.recipe)


if __name__ == "__main__":
    run("best", main)
