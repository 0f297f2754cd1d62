"""Measure a command and all processes that it starts: time and memory."""

import contextlib
import resource
import subprocess
import time
from pathlib import Path

from bench.commands import ENVIRONMENT, Figures
from common.console import InputError

POLL = 0.05  # seconds between two looks at the memory


def process_tree(process: int) -> list[int]:
    """Return the number of a process and of all processes that it and its own have started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(number for child in children for number in process_tree(int(child)))]


def kilobytes(process: int, file: str, key: str) -> int:
    """Return the value of a line of /proc/<process>/<file>, as proc(5) describes it."""
    for line in Path(f"/proc/{process}/{file}").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def processor_time_of_children() -> float:
    """Return the processor time of all processes that were started and have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_processes(folder: Path, *arguments: str) -> Figures:
    """Run a command in a folder and measure it.

    Returns
    -------
    dict of str to float
        ``seconds`` on the clock. ``processor_seconds`` in all processes of the command: another
        program that runs meanwhile changes them little. ``largest_process``, the megabytes of
        the largest resident set of a process, and ``all_processes``, the largest sum over them
        with what they share counted once.

    Raises
    ------
    InputError
        If the command fails.
    """
    start, start_processor_time = time.perf_counter(), processor_time_of_children()
    process = subprocess.Popen(arguments, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    largest = total = 0
    while process.poll() is None:
        try:
            processes = process_tree(process.pid)
            largest = max(largest, *(kilobytes(one, "status", "VmHWM") for one in processes))
            total = max(total, sum(kilobytes(one, "smaps_rollup", "Pss") for one in processes))
        except OSError:
            pass  # one of them has ended meanwhile
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    if process.returncode:
        raise InputError(f"{' '.join(arguments)} failed in {folder}")
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": processor_time_of_children() - start_processor_time,
        "largest_process": largest / 1000,
        "all_processes": total / 1000,
    }
