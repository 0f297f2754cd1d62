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
from contextlib import suppress
from pathlib import Path

import psutil
from dvc.repo import Repo
from dvc.repo.experiments.queue.base import QueueEntry
from dvc.repo.experiments.queue.celery import LocalCeleryQueue
from dvc.repo.experiments.queue.tasks import run_exp

from common.console import InputError, run, run_program
from runs.commands import whole_number

QUEUED, RUNNING = "Queued", "Running"


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


def main() -> None:
    """Put back what was killed, and start the workers."""
    parser = argparse.ArgumentParser(prog="make queue", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", metavar="JOBS", help="number of experiments at a time")
    jobs = whole_number("JOBS", parser.parse_args().jobs, 1)
    for name in put_back_dead():
        print(f"queue: {name} is run again; its worker had been killed")
    if QUEUED in statuses().values():
        print(start_workers(jobs) or "queue: the workers that it needs run already")
    else:
        print("queue: no experiment waits; `dvc exp run --queue` puts one there")


if __name__ == "__main__":
    run("queue", main)
