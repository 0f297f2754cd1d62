"""Run the pipeline in the folder of a trial, and end when the search ends.

    python -m search.repro PARENT

PARENT is the process of the search. DVC itself would go on when that is killed, and nobody would
know of what it runs.
"""

import argparse
import sys
import threading

from dvc.cli import main as dvc

from common.restore import end_with


def main() -> int:
    """Bring what DVC keeps, then run what is not up to date; return DVC's exit status."""
    parser = argparse.ArgumentParser(prog="search.repro", description=__doc__.splitlines()[0])
    parser.add_argument("parent", metavar="PARENT", type=int, help="the process of the search")
    parent = parser.parse_args().parent
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    # What DVC's cache lacks, the pipeline makes, or says that it cannot.
    return dvc(["checkout", "--force", "--allow-missing"]) or dvc(["repro"])


if __name__ == "__main__":
    sys.exit(main())
