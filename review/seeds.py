"""Run the current settings with several seeds, as DVC experiments of the queue.

    python -m review.seeds [N]

The seeds are that of params.yaml and the N - 1 that follow. What is there already is not run
again; whoever interrupts it may start it again.
"""

import argparse
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from review.revision import Revision, clone, folder_environment, git, resolve, stale_stages
from stages.console import InputError, progress, run
from stages.params import Seed, StageParams, read_params

WAITING = ("Queued", "Running")
POLL = 5  # seconds


class SeedsParams(StageParams):
    """What is read of params.yaml."""

    seed: Seed


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


def dvc(*words: str, **environment: str) -> str:
    """Run dvc, as often as another dvc holds its lock; return what it prints on success."""
    while True:
        done = subprocess.run(
            ["dvc", *words],
            capture_output=True,
            text=True,
            env=folder_environment() | environment,
        )
        if done.returncode == 0:
            return done.stdout
        if "Unable to acquire lock" not in done.stderr:
            raise InputError(f"dvc {' '.join(words)}: {done.stderr.strip()}")
        time.sleep(1)


def queued() -> dict[str, str]:
    """Return the status of the experiments in DVC's queue by name: Queued, Running, Failed."""
    rows = [line.split() for line in dvc("queue", "status").splitlines()[1:]]
    return {row[1]: row[-1] for row in rows if len(row) > 3}


def run_queue(names: set[str]) -> None:
    """Work through DVC's queue until none of the experiments waits; jobs share the cores."""
    cores = os.cpu_count() or 1
    jobs = min(len(names), cores)
    threads = str(max(1, cores // jobs))
    with progress("seeds", len(names), "experiments") as bar:
        while waiting := {n for n, status in queued().items() if status in WAITING} & names:
            # Again: a worker of the queue that has ended is replaced, one that runs stays.
            dvc(
                *("queue", "start", "--jobs", str(jobs)),
                TF_NUM_INTRAOP_THREADS=threads,
                TF_NUM_INTEROP_THREADS=threads,
            )
            bar.update(len(names) - len(waiting) - bar.n)
            time.sleep(POLL)


def main() -> None:
    """Run what is missing, then say mean and standard deviation."""
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__.splitlines()[0])
    parser.add_argument("n", nargs="?", default=5, type=int, help="number of seeds, default 5")
    n = parser.parse_args().n
    if n < 2:
        raise InputError(f"N is {n}; it must be 2 or more")
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    head, first = resolve("HEAD"), read_params(SeedsParams).seed
    check_committed(head)
    names = {seed: f"seed-{seed}-{head.commit[:7]}" for seed in range(first, first + n)}

    missing = {seed: name for seed, name in names.items() if seed not in head.seeds()}
    known = queued() if missing else {}
    for seed, name in missing.items():
        if known.get(name) in WAITING:
            continue
        if name in known:  # it failed or was stopped
            dvc("queue", "remove", name)
        dvc("exp", "run", "--queue", "--name", name, "-S", f"seed={seed}")
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
