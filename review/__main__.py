"""Tell whether a revision is better than another one, or whether that was luck.

    python -m review [--base REVISION] [--rev REVISION] [--fail-on regression]

It reads what Git holds, downloads nothing, and writes review/report.html and review/report.md.
"""

import argparse
from pathlib import Path

from common.console import InputError, run
from review.base import default_base
from review.rendering import COMMENT, PAGE, write_report
from review.report import compare
from review.revision import resolve

REGRESSION = "regression"


def main() -> None:
    """Write both files and print what is read first."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="", help="default: where REV left the main branch")
    parser.add_argument("--rev", default="", help="default: HEAD")
    parser.add_argument("--fail-on", default="", help="regression: end with status 1 at one")
    arguments = parser.parse_args()
    if arguments.fail_on not in ("", REGRESSION):
        raise InputError(f"FAIL_ON is {arguments.fail_on}; it must be {REGRESSION}, or nothing")
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    after = resolve(arguments.rev or "HEAD")
    after.check_params()
    before = resolve(arguments.base) if arguments.base else default_base(after)
    report = compare(before, after)
    write_report(report)
    print(f"review: {report.headline.verdict}")
    if report.headline.verdict_over_seeds:
        print(f"review: {report.headline.verdict_over_seeds}")
    for warning in report.headline.warnings:
        print(f"review: warning: {warning}")
    print(f"review: the whole review is in {PAGE}, and as Markdown in {COMMENT}")
    if arguments.fail_on and report.headline.is_regression:
        raise InputError(f"{after.name} is a regression, and FAIL_ON={REGRESSION} forbids one")


if __name__ == "__main__":
    run("review", main)
