"""Run the experiments of DVC's queue: `make queue JOBS=2`.

    python -m runs.queue JOBS

DVC's workers take experiments out of the queue, at most JOBS at a time. An experiment whose
worker was killed, as by a power cut, is put back into the queue: DVC itself would show it as
running for ever.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from dvc.repo import Repo
from dvc.repo.experiments.queue.base import QueueEntry
from dvc.repo.experiments.queue.celery import LocalCeleryQueue
from dvc.repo.experiments.queue.tasks import run_exp

from common.console import InputError, progress, run, run_program
from common.processors import usable_processors
from review.git import check_place, folder_environment
from runs.commands import brought_along, whole_number
from runs.workers import visible_gpus

QUEUED, RUNNING = "Queued", "Running"
POLL = 5  # seconds between two looks at the queue


def statuses() -> dict[str, str]:
    """Return the status of each experiment in the queue by its name: Queued, Running, Failed."""
    with Repo() as repo:
        return {row["name"]: row["status"] for row in repo.experiments.celery_queue.status()}


def tasks_of_living_workers(queue: LocalCeleryQueue) -> set[str] | None:
    """Return the tasks that living workers of a queue run, or None where that is not certain.

    A worker gives each task to a process of its own. A worker without such a process may be
    about to start it, or about to collect what it wrote: then it is not certain.

    The system is asked for its processes. The process numbers that DVC has noted do not tell,
    because other processes have them after a restart; nor do the workers, because a busy one may
    not answer in time.
    """
    node = f"dvc-exp-{hashlib.sha256(queue.wdir.encode()).hexdigest()[:6]}-"  # as DVC names it
    workers: set[int] = set()
    tasks: dict[int, str] = {}  # by the worker that started it
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        arguments = process.info["cmdline"] or []
        if "queue-worker" in arguments and any(text.startswith(node) for text in arguments):
            workers.add(process.info["pid"])
        elif "exec-run" in arguments and "--infofile" in arguments:
            infofile = arguments[arguments.index("--infofile") + 1]
            tasks[process.info["ppid"]] = Path(infofile).parent.name
    if workers - tasks.keys():
        return None
    return {tasks[worker] for worker in workers}


def put_back(queue: LocalCeleryQueue, entry: QueueEntry) -> None:
    """Put an experiment whose worker is dead back into the queue, as it was put there at first."""
    for message, message_entry in list(queue._iter_processed()):
        if message_entry != entry:
            continue
        with suppress(FileNotFoundError):  # it may have been killed before it made its folder
            shutil.rmtree(queue._load_info(entry.stash_rev).root_dir)
        if entry.stash_rev not in queue.stash.stash_revs:  # the worker took it out
            origin = (entry.head_rev, entry.baseline_rev, entry.name, entry.branch)
            note = f"commit: {queue.stash.format_message(*origin)}"
            queue.scm.set_ref(queue.stash.ref, entry.stash_rev, message=note)
        arguments, options, _ = message.decode()
        queue.celery.signature(run_exp.s(*arguments, **options)).delay()
        queue.celery.purge(message.delivery_tag)


def put_back_dead() -> list[str]:
    """Put the experiments whose workers are dead back into the queue; return their names."""
    with Repo() as repo:
        queue = repo.experiments.celery_queue
        active_before = list(queue.iter_active())
        if not active_before:
            return []
        tasks = tasks_of_living_workers(queue)
        if tasks is None:
            return []
        # DVC is asked before and after: a worker may meanwhile go from one experiment to the next.
        without_worker = {entry.stash_rev for entry in queue.iter_active()} - tasks
        dead = [entry for entry in active_before if entry.stash_rev in without_worker]
        for entry in dead:
            put_back(queue, entry)
    return [entry.name for entry in dead]


def start_workers(jobs: int) -> str:
    """Start workers until there are as many as can be busy; return what is to be said of it.

    A worker that runs already is left alone.

    Parameters
    ----------
    jobs : int
        Number of experiments at a time, among which the machine is shared (`runs.workers`).

    Raises
    ------
    InputError
        If DVC fails, with what it prints.
    """
    unfinished = sum(status in (QUEUED, RUNNING) for status in statuses().values())
    command = [sys.executable, "-m", "runs.workers", str(min(jobs, unfinished)), str(jobs)]
    # A file and not a pipe: the workers would keep the other end of a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = run_program(command, stdout=output, stderr=subprocess.STDOUT)
        output.seek(0)
        text = output.read().strip()
    if done.returncode:
        raise InputError(f"the workers of the queue do not start: {text}")
    return text


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
    """Put back what was killed, and start the workers."""
    parser = argparse.ArgumentParser(prog="make queue", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", metavar="JOBS", help="number of experiments at a time")
    jobs = whole_number("JOBS", parser.parse_args().jobs, 1)
    check_place()
    for name in put_back_dead():
        print(f"queue: {name} is run again; its worker had been killed")
    if QUEUED in statuses().values():
        print(start_workers(jobs) or "queue: the workers that it needs run already")
    else:
        print("queue: no experiment waits; `dvc exp run --queue` puts one there")


if __name__ == "__main__":
    run("queue", main)
