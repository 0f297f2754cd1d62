"""Start workers of DVC's queue, each with its share of this machine.

    python -m runs.workers WORKERS JOBS

Worker k of JOBS gets GPU k and the k-th part of the processors, and what it runs has them, too.
Where there are more jobs than GPUs, the first GPU is also that of the next job, and so on;
processors likewise. Without a GPU the processors are all there is to share.

It is a program of its own because DVC's workers keep open what their starter prints to.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dvc.repo import Repo
from dvc.repo.experiments.queue.celery import LocalCeleryQueue

from common.console import run
from common.processors import usable_processors
from review.git import check_place
from runs.commands import whole_number

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Return the GPUs that TensorFlow may use, as `CUDA_VISIBLE_DEVICES` [1]_ names them.

    They are those that it names already; where it is not set, all that `nvidia-smi` lists.
    TensorFlow is not asked: importing it takes seconds.

    References
    ----------
    .. [1] https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#env-vars
    """
    if VISIBLE in os.environ:
        named = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [] if named[0] in ("", "-1") else named
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", listed.stdout, re.MULTILINE)


def share(things: Sequence, job: int, jobs: int) -> list:
    """Return a job's part of some things; with fewer things than jobs, each in its turn.

    Parameters
    ----------
    things : sequence
        What is shared, at least one.
    job : int
        Which job, from 0.
    jobs : int
        Number of jobs.

    Examples
    --------
    >>> [share([0, 1, 2, 3, 4], job, 2) for job in range(2)]
    [[0, 1], [2, 3, 4]]
    >>> [share(["a", "b"], job, 3) for job in range(3)]
    [['a'], ['b'], ['a']]
    """
    if len(things) < jobs:
        return [things[job % len(things)]]
    return list(things[len(things) * job // jobs : len(things) * (job + 1) // jobs])


@contextmanager
def machine_of_job(job: int, jobs: int) -> Iterator[None]:
    """Leave a job's share of the machine to the processes that are started meanwhile.

    A GPU is one of its own, even where there are more GPUs than jobs: several would train
    together, and to other bytes. How many threads TensorFlow makes is left to the parameter
    `threads`, because their number decides the bytes of a training.
    """
    before, gpus = os.environ.copy(), visible_gpus()
    if gpus:
        os.environ[VISIBLE] = gpus[job % len(gpus)]
    if sys.platform == "linux":  # macOS shares processors out by itself
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, share(sorted(processors), job, jobs))
    try:
        yield
    finally:
        if sys.platform == "linux":
            os.sched_setaffinity(0, processors)
        os.environ.clear()
        os.environ.update(before)


def describe_shares(jobs: int) -> str:
    """Return what each job has of this machine, as ``1 of 2 cores``."""
    gpus, cores = visible_gpus(), usable_processors()
    described = f"{max(1, cores // jobs)} of {cores} cores"
    if cores < jobs:
        described = f"a core, of {cores}, together with others"
    if gpus:
        described += f" and a GPU of {len(gpus)}"
        described += ", together with others" if len(gpus) < jobs else ""
    return described


def start_workers(queue: LocalCeleryQueue, workers: int, jobs: int) -> int:
    """Start the workers up to a number that do not run yet; return how many these are.

    This is `LocalCeleryQueue.start_workers` with a share of the machine for each.
    """
    running = queue.worker_status()
    folder = hashlib.sha256(queue.wdir.encode()).hexdigest()[:6]
    missing = [
        job for job in range(workers) if f"dvc-exp-{folder}-{job + 1}@localhost" not in running
    ]
    for job in missing:
        with machine_of_job(job, jobs):
            queue._spawn_worker(job + 1)
    return len(missing)


def main() -> None:
    """Start the workers and say what they have."""
    parser = argparse.ArgumentParser(prog="runs.workers", description=__doc__.splitlines()[0])
    parser.add_argument("workers", help="number of workers to be there")
    parser.add_argument("jobs", help="number of workers among which the machine is shared")
    arguments = parser.parse_args()
    workers = whole_number("WORKERS", arguments.workers, 1)
    jobs = whole_number("JOBS", arguments.jobs, workers)
    check_place()
    with Repo() as repo:
        started = start_workers(repo.experiments.celery_queue, workers, jobs)
    if started:
        print(f"queue: started {started}; each has {describe_shares(jobs)}")


if __name__ == "__main__":
    run("queue", main)
