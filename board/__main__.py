"""Show all results of this repository on one page.

    python -m board

It reads what Git holds, downloads nothing, and writes board/board.html.
"""

import argparse

import optuna

from board.page import PAGE, write_page
from common.console import run
from review.git import check_place
from search.results import read_results


def main() -> None:
    """Write the page and say where it is."""
    argparse.ArgumentParser(prog="make board", description=__doc__.splitlines()[0]).parse_args()
    check_place()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = read_results()
    write_page(results)
    number = sum(result.is_experiment for result in results)
    print(f"board: {len(results):,} results, of which {number:,} are experiments, in {PAGE}")


if __name__ == "__main__":
    run("board", main)
