"""What a stage tells the person who waits for it: its progress, and what is wrong."""

import sys
from collections.abc import Callable

from tqdm import tqdm


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is for the user: what is wrong, where, and what would be right.
    """


def run(stage: str, main: Callable[[], None]) -> None:
    """Run a stage's `main`; end the process with one line where the input is at fault.

    Parameters
    ----------
    stage : str
        Name of the stage, the first word of the line.
    main : callable
        The stage. What it raises as `InputError` or `OSError` (no such file, no space left)
        ends the process with exit status 1; Ctrl-C with 130. All else is a defect of the
        program and keeps its traceback.
    """
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"{stage}: error: {error}")
    except KeyboardInterrupt:
        print(f"{stage}: interrupted", file=sys.stderr)
        sys.exit(130)


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
