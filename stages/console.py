"""What a stage tells the person who waits for it: its progress, and what is wrong."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from tqdm import tqdm

from stages import restore


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is for the user: what is wrong, where, and what would be right.
    """


def run(stage: str, main: Callable[[], int | None]) -> NoReturn:
    """Run a stage's `main` and end the process, with one line where the input is at fault.

    Parameters
    ----------
    stage : str
        Name of the stage, the first word of the line.
    main : callable
        The stage; it may return an exit status. What it raises as `InputError` or `OSError` (no
        such file, no space left, nobody who reads what it prints) ends the process with exit
        status 1; Ctrl-C with 130. All else is a defect of the program and keeps its traceback.
    """
    line, at_once = "", signal.getsignal(signal.SIGINT)
    try:
        try:
            if at_once is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            status = main() or 0
        finally:  # Ctrl-C still counts: DVC would start the next stage
            signal.signal(signal.SIGINT, at_once)
        sys.stdout.flush()
    except (InputError, OSError) as error:
        status, line = 1, f"error: {error}"
    except KeyboardInterrupt:
        status, line = 130, "interrupted"
    if line:
        with contextlib.suppress(OSError):
            print(f"{stage}: {line}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at its end, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if status == 0:
        restore.finish()
    sys.exit(status)


def run_program(words: list[str], **options: object) -> subprocess.CompletedProcess:
    """Run a program that Ctrl-C reaches too; let it tidy up, as DVC does, before this one ends.

    Parameters
    ----------
    words : list of str
        The command.
    **options
        Those of `subprocess.run`, which by itself would kill the program after 0.25 seconds.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C was pressed meanwhile, once the program has ended.
    """
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        done = subprocess.run(words, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
    return done


def progress(what: str, total: int, unit: str) -> tqdm:
    """Return a progress bar that shows on a terminal alone; elsewhere stages print lines.

    Parameters
    ----------
    what : str
        What is going on, shown before the bar.
    total : int
        Number of units until the end.
    unit : str
        Name of the unit, in the plural.
    """
    interactive = sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=f" {unit}", disable=not interactive, leave=False)
