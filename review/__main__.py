"""Tell whether a revision is better than another one, or whether that was luck.

    python -m review [--base REVISION] [--rev REVISION]

It reads what Git holds, downloads nothing, and writes review/report.html and review/report.md.
"""

import argparse
from pathlib import Path

from common.console import InputError, run
from review.rendering import COMMENT, PAGE, write_report
from review.report import compare
from review.revision import default_base, resolve


def main() -> None:
    """Write both files and print what is read first."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="", help="default: where REV left the branch main")
    parser.add_argument("--rev", default="", help="default: HEAD")
    arguments = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    after = resolve(arguments.rev or "HEAD")
    before = resolve(arguments.base) if arguments.base else default_base(after)
    report = compare(before, after)
    write_report(report)
    print(f"review: {report.headline.verdict}")
    if report.headline.verdict_over_seeds:
        print(f"review: {report.headline.verdict_over_seeds}")
    for warning in report.headline.warnings:
        print(f"review: warning: {warning}")
    print(f"review: the whole review is in {PAGE}, and as Markdown in {COMMENT}")


if __name__ == "__main__":
    run("review", main)
