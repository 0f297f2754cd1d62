"""Run the current settings with several seeds, as DVC experiments of the queue.

    python -m review.seeds N

The seeds are that of params.yaml and the N - 1 that follow. What is there already is not run
again; whoever interrupts it may start it again.
"""

import argparse
import os
import subprocess
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from review.commands import brought_along, whole_number
from review.queue import QUEUED, RUNNING, put_back_dead, start_workers, statuses
from review.revision import Revision, clone, folder_environment, git, resolve, stale_stages
from stages.console import InputError, progress, run, run_program
from stages.params import Seed, StageParams, read_params

POLL = 5  # seconds


class SeedsParams(StageParams):
    """What is read of params.yaml."""

    seed: Seed
    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")


def check_committed(head: Revision) -> None:
    """Check that experiments would differ from a revision in the seed alone.

    Raises
    ------
    InputError
        If the working tree or dvc.lock is not that of the committed code and parameters.
    """
    if git("status", "--porcelain", "--untracked-files=no"):
        raise InputError("the working tree differs from HEAD; commit or undo what changed first")
    with clone(head, head) as folder:
        stale = stale_stages(folder, "after")
    if stale != []:
        raise InputError(
            "the committed dvc.lock does not belong to the committed code and parameters; run "
            "`dvc repro` and commit what it writes"
        )


def dvc(*words: str) -> None:
    """Run dvc, as often as another dvc holds its lock."""
    while True:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        done = run_program(["dvc", *words], env=folder_environment(), **pipes)
        if done.returncode == 0:
            return
        if "Unable to acquire lock" not in done.stderr:
            raise InputError(f"dvc {' '.join(words)}: {done.stderr.strip()}")
        time.sleep(1)


def run_queue(names: set[str]) -> None:
    """Work through DVC's queue until none of the experiments waits; jobs share the cores.

    Raises
    ------
    InputError
        If the worker of an experiment was killed again after that was put back.
    """
    jobs = min(len(names), os.cpu_count() or 1)
    killed = set()
    with progress("seeds", len(names), "experiments") as bar:
        while True:
            dead = set(put_back_dead()) & names
            if dead & killed:
                raise InputError(
                    f"the worker of {', '.join(sorted(dead & killed))} was killed twice; is there "
                    "memory enough? Start again to go on"
                )
            killed |= dead
            found = statuses()
            waiting = {name for name in names if found.get(name) in (QUEUED, RUNNING)}
            bar.update(len(names) - len(waiting) - bar.n)
            if not waiting:
                return
            if QUEUED in found.values():  # without, workers would never end, and none seem dead
                start_workers(jobs)
            time.sleep(POLL)


def main() -> None:
    """Run what is missing, then say mean and standard deviation."""
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__.splitlines()[0])
    parser.add_argument("n", metavar="N", help="number of seeds")
    n = whole_number("N", parser.parse_args().n, 2)
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    head, params = resolve("HEAD"), read_params(SeedsParams)
    check_committed(head)
    names = {seed: f"seed-{seed}-{head.commit[:7]}" for seed in range(params.seed, params.seed + n)}

    missing = {seed: name for seed, name in names.items() if seed not in head.seeds()}
    known = statuses() if missing else {}
    copies = brought_along(params.dataset)
    for seed, name in missing.items():
        if known.get(name) in (QUEUED, RUNNING):
            continue
        if name in known:  # it failed or was stopped
            dvc("queue", "remove", name)
        dvc("exp", "run", "--queue", "--name", name, "-S", f"seed={seed}", *copies)
    if missing:
        print(
            f"seeds: running {', '.join(map(str, missing))}; `dvc queue status` shows them",
            flush=True,
        )
        run_queue(set(missing.values()))

    found = head.seeds()
    for seed in sorted(set(names) & set(found)):
        print(f"seeds: {seed}: test accuracy {found[seed].accuracy:.4f}")
    failed = [names[seed] for seed in names if seed not in found]
    if failed:
        raise InputError(
            f"no result of {', '.join(failed)}; `dvc queue logs NAME` says why; "
            "start again to go on"
        )
    accuracies = [found[seed].accuracy for seed in names]
    mean, deviation = np.mean(accuracies), np.std(accuracies, ddof=1)
    print(f"seeds: {n}: mean {mean:.2%}, standard deviation {100 * deviation:.2f} points")


if __name__ == "__main__":
    run("seeds", main)
