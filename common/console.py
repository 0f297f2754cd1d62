"""What a stage tells the person who waits for it: its progress, and what is wrong."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from tqdm import tqdm

from common import declarations, restore, startup

tqdm.monitor_interval = 0  # no thread of its own: `load` starts processes by fork


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
    status, message = 1, ""
    try:
        with interruptible():
            status = main() or 0
            check_unchanged()
        sys.stdout.flush()
    except (InputError, OSError) as error:
        status, message = 1, f"error: {error}"
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    if message:
        with contextlib.suppress(OSError):
            print(f"{stage}: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Python would flush again when it ends, and print the error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if status == 0:
        restore.stage_succeeded()
    sys.exit(status)


def check_unchanged() -> None:
    """Check that all that is declared for a stage is as it was when the stage began.

    Raises
    ------
    InputError
        If it is not: what was made does not belong to what DVC would record.
    """
    changed = declarations.changes()
    if changed:
        raise InputError(
            f"{declarations.described(changed)}: DVC would record that as what made the results, "
            "so they do not count; run `dvc repro` again"
        )


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` meanwhile, so that ``with`` blocks clean up.

    Before and afterwards it ends the process at once, as `common.startup` has it: if it were lost
    after the block, DVC would start the next stage. An ignored Ctrl-C stays ignored.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def importing(program: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once while `main` imports what takes seconds.

    So it does while the modules at the top of a program are imported; `common.startup` says why.
    """
    handler = signal.getsignal(signal.SIGINT)
    startup.end_on_interrupt(program)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def run_program(command: list[str], **options: Any) -> subprocess.CompletedProcess:
    """Run a program that Ctrl-C reaches too; let it tidy up, as DVC does, before this one ends.

    Parameters
    ----------
    command : list of str
        The program and its arguments.
    **options
        Those of `subprocess.run`, which by itself would kill the program after 0.25 seconds.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C was pressed meanwhile, once the program has ended.
    """
    with deferring_interrupts():
        return subprocess.run(command, **options)


@contextlib.contextmanager
def deferring_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait until the ``with`` block has ended. An ignored Ctrl-C stays ignored.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, if Ctrl-C was pressed meanwhile.
    """
    interrupts: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if interrupts:
            raise KeyboardInterrupt


def progress(title: str, total: int, unit: str) -> tqdm:
    """Return a progress bar that shows on a terminal alone; elsewhere stages print lines.

    Parameters
    ----------
    title : str
        What is going on, shown before the bar.
    total : int
        Number of units until the end.
    unit : str
        Name of the unit, in the plural.
    """
    interactive = sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=f" {unit}", disable=not interactive, leave=False)
