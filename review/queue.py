"""Run the experiments of DVC's queue: `make queue JOBS=2`.

    python -m review.queue JOBS

DVC's workers take them out of the queue, at most JOBS at a time. What ran when its worker was
killed, as by a power cut, is put back into the queue: DVC would call it running for ever.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from dvc.repo import Repo
from dvc.repo.experiments.queue.base import QueueEntry
from dvc.repo.experiments.queue.celery import LocalCeleryQueue
from dvc.repo.experiments.queue.tasks import run_exp

from review.commands import whole_number
from stages.console import InputError, run, run_program

QUEUED, RUNNING = "Queued", "Running"


def statuses() -> dict[str, str]:
    """Return the status of the experiments in the queue by name: Queued, Running, Failed, ..."""
    with Repo() as repo:
        return {row["name"]: row["status"] for row in repo.experiments.celery_queue.status()}


def worked_on(queue: LocalCeleryQueue) -> set[str] | None:
    """Return the tasks that living workers of a queue run, or None where that is not certain.

    A worker gives each task to a process of its own. One that has no such process may be about
    to start it, or about to collect what it wrote. The processes of the system are asked, not
    the process numbers that DVC notes: after a restart, others have them. Nor the workers
    themselves: a busy one may not answer in time.
    """
    node = f"dvc-exp-{hashlib.sha256(queue.wdir.encode()).hexdigest()[:6]}-"  # as DVC names it
    workers, tasks = set(), {}
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "queue-worker" in words and any(word.startswith(node) for word in words):
            workers.add(process.info["pid"])
        elif "exec-run" in words and "--infofile" in words:
            infofile = words[words.index("--infofile") + 1]
            tasks[process.info["ppid"]] = Path(infofile).parent.name
    return None if workers - tasks.keys() else {tasks[worker] for worker in workers}


def put_back(queue: LocalCeleryQueue, entry: QueueEntry) -> None:
    """Put an experiment whose worker is dead back into the queue, as it was put there at first."""
    for message, other in list(queue._iter_processed()):
        if other == entry:
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
        # Before and after: a worker may go from one experiment to the next meanwhile.
        before = list(queue.iter_active())
        tasks = worked_on(queue) if before else None
        if tasks is None:
            return []
        still = {entry.stash_rev for entry in queue.iter_active()} - tasks
        dead = [entry for entry in before if entry.stash_rev in still]
        for entry in dead:
            put_back(queue, entry)
    return [entry.name for entry in dead]


def start_workers(jobs: int) -> str:
    """Start the workers that are missing; return what DVC says.

    A worker that runs stays. Each training gets its share of the cores, by TensorFlow's own
    settings.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    share = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    waiting = sum(status in (QUEUED, RUNNING) for status in statuses().values())
    words = ["dvc", "queue", "start", "--jobs", str(min(jobs, waiting))]
    with tempfile.TemporaryFile("w+") as said:  # of a pipe, the workers would keep the other end
        options = {"stdout": said, "stderr": subprocess.STDOUT, "env": os.environ | share}
        done = run_program(words, **options)
        said.seek(0)
        text = said.read().strip()
    if done.returncode:
        raise InputError(f"{' '.join(words)}: {text}")
    return text


def main() -> None:
    """Start the workers."""
    parser = argparse.ArgumentParser(prog="make queue", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", metavar="JOBS", help="number of experiments at a time")
    jobs = whole_number("JOBS", parser.parse_args().jobs, 1)
    for name in put_back_dead():
        print(f"queue: {name} is run again; its worker had been killed")
    if QUEUED in statuses().values():
        print(start_workers(jobs))
    else:
        print("queue: no experiment waits; `dvc exp run --queue` puts one there")


if __name__ == "__main__":
    run("queue", main)
