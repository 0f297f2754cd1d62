"""Run the current settings with several seeds, as DVC experiments of the queue: `make seeds N=5`.

    python -m runs.seeds N

The seeds are that of params.yaml and the N - 1 that follow it. A seed of which there is a result
is not run again, so that one can interrupt this program and start it again.
"""

import argparse
import subprocess
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from common.console import InputError, progress, run, run_program
from common.params import Seed, StageParams, read_params
from common.processors import usable_processors
from review.current import check_tag
from review.revision import Revision, clone, folder_environment, git, resolve
from runs.commands import brought_along, whole_number
from runs.queue import QUEUED, RUNNING, put_back_dead, start_workers, statuses
from runs.workers import visible_gpus

POLL = 5  # seconds


class SeedsParams(StageParams):
    """What this program reads of params.yaml."""

    seed: Seed
    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")


def check_committed(head: Revision) -> None:
    """Check that the experiments will differ from the last commit in the seed alone.

    Raises
    ------
    InputError
        If the working tree differs from it, or its dvc.lock is not that of its code and
        parameters.
    """
    if git("status", "--porcelain", "--untracked-files=no"):
        raise InputError("the working tree differs from HEAD; commit or undo what changed first")
    with clone(head, head) as folder:
        check = check_tag(folder, "after")
    if not check.is_current:
        raise InputError(
            "the committed dvc.lock does not belong to the committed code and parameters; run "
            "`dvc repro` and commit what it writes"
        )


def run_dvc_when_unlocked(*arguments: str) -> None:
    """Run dvc; where another dvc holds the lock of the repository, wait and try again.

    Raises
    ------
    InputError
        If dvc fails for another reason, with what it prints.
    """
    while True:
        done = run_program(
            ["dvc", *arguments],
            env=folder_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == 0:
            return
        if "Unable to acquire lock" not in done.stderr:
            raise InputError(f"dvc {' '.join(arguments)}: {done.stderr.strip()}")
        time.sleep(1)


def put_into_queue(names: dict[int, str], dataset: str) -> None:
    """Put an experiment for each seed into the queue, if it is not there already.

    Parameters
    ----------
    names : dict of int to str
        The name of the experiment of each seed.
    dataset : str
        The data set, as params.yaml names it.
    """
    status_of = statuses()
    copy_options = brought_along(dataset)
    for seed, name in names.items():
        if status_of.get(name) in (QUEUED, RUNNING):
            continue
        if name in status_of:  # it failed, or the user stopped it
            run_dvc_when_unlocked("queue", "remove", name)
        run_dvc_when_unlocked(
            "exp", "run", "--queue", "--name", name, "-S", f"seed={seed}", *copy_options
        )


def run_queue(names: set[str]) -> None:
    """Run the queue until none of some experiments waits or runs.

    As many run at a time as there are GPUs or, where there is none, processors.

    Parameters
    ----------
    names : set of str
        The experiments.

    Raises
    ------
    InputError
        If the worker of an experiment is killed a second time.
    """
    jobs = min(len(names), len(visible_gpus()) or usable_processors())
    killed: set[str] = set()
    with progress("seeds", len(names), "experiments") as bar:
        while True:
            newly_killed = set(put_back_dead()) & names
            killed_twice = newly_killed & killed
            if killed_twice:
                raise InputError(
                    f"the worker of {', '.join(sorted(killed_twice))} was killed twice; is there "
                    "memory enough? Start again to go on"
                )
            killed |= newly_killed
            status_of = statuses()
            unfinished = {name for name in names if status_of.get(name) in (QUEUED, RUNNING)}
            bar.update(len(names) - len(unfinished) - bar.n)
            if not unfinished:
                return
            # Only where one waits: workers would otherwise never end, and none would seem dead.
            if QUEUED in status_of.values():
                start_workers(jobs)
            time.sleep(POLL)


def main() -> None:
    """Run the seeds that are missing, then print mean and standard deviation."""
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__.splitlines()[0])
    parser.add_argument("n", metavar="N", help="number of seeds")
    number = whole_number("N", parser.parse_args().n, 2)
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    head, params = resolve("HEAD"), read_params(SeedsParams)
    check_committed(head)
    seeds = range(params.seed, params.seed + number)
    names = {seed: f"seed-{seed}-{head.commit[:7]}" for seed in seeds}

    known = head.accuracies_by_seed()
    missing = {seed: name for seed, name in names.items() if seed not in known}
    if missing:
        put_into_queue(missing, params.dataset)
        print(
            f"seeds: running {', '.join(map(str, missing))}; `dvc queue status` shows them",
            flush=True,
        )
        run_queue(set(missing.values()))

    results = head.accuracies_by_seed()
    for seed in seeds:
        if seed in results:
            print(f"seeds: {seed}: accuracy {results[seed]:.4f}")
    failed = [name for seed, name in names.items() if seed not in results]
    if failed:
        raise InputError(
            f"no result of {', '.join(failed)}; `dvc queue logs NAME` says why; "
            "start again to go on"
        )
    accuracies = [results[seed] for seed in seeds]
    mean, deviation = np.mean(accuracies), np.std(accuracies, ddof=1)
    print(f"seeds: {number}: mean {mean:.2%}, standard deviation {100 * deviation:.2f} points")


if __name__ == "__main__":
    run("seeds", main)
