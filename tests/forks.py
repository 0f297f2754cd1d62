"""Stages that run in copies of a process that has imported what they need.

The import takes seconds: that is most of the time of a stage on the small data set. Where a test is
about what stages write, and not about how they start, it may take this way.
"""

import multiprocessing
import os
import runpy
from collections.abc import Callable
from pathlib import Path

from tests.helpers import STAGES, dvc

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*(f"stages.{stage}" for stage in STAGES), "seaborn"])


def run_copied(
    folder: Path, stage: str, begin: Callable[[], None] | None = None
) -> tuple[int | None, str]:
    """Run a stage in a copy of the process that has imported what it needs.

    `begin`, if it is given, is called there first. Returns the exit code and what was printed.
    """
    process = FORKS.Process(target=run_here, args=(folder, stage, begin))
    process.start()
    process.join()
    return process.exitcode, Path(f"{folder}.log").read_text()


def run_here(folder: Path, stage: str, begin: Callable[[], None] | None) -> None:
    """Run a stage in this process as `python -m` does; write what it prints beside the folder."""
    os.chdir(folder)
    with Path(f"{folder}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if begin:
        begin()
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


def reproduce(folder: Path) -> None:
    """Write and record what the parameters of a copy of the repository give.

    The code is that of this repository: a copy in which it was changed needs `dvc repro`.
    """
    for stage in STAGES:
        exitcode, said = run_copied(folder, stage)
        assert exitcode == 0, said
    dvc(folder, "commit", "--force", *STAGES)
