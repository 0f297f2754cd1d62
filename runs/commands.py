"""What several programs behind the Makefile need: its variables, and data sets for experiments."""

import re
from pathlib import Path

from common.console import InputError


def whole_number(variable: str, text: str, lowest: int, highest: int | None = None) -> int:
    """Return the whole number that the user gave to a variable of the Makefile.

    Parameters
    ----------
    variable : str
        Its name, as the user typed it: ``JOBS``.
    text : str
        What the user gave.
    lowest : int
        The lowest number that is allowed.
    highest : int or None
        The highest number that is allowed; None if there is no highest.

    Raises
    ------
    InputError
        If the text is not a whole number, or one that is not allowed.

    Examples
    --------
    >>> whole_number("JOBS", "2", 1)
    2
    """
    if re.fullmatch("[0-9]{1,18}", text):
        number = int(text)
        if lowest <= number and (highest is None or number <= highest):
            return number
    allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    raise InputError(f"{variable} is {text!r}; it must be a whole number, {allowed}")


def brought_along(dataset: str) -> list[str]:
    """Return the options of ``dvc exp run`` that bring a data set into an experiment's own folder.

    None are needed for what Git or DVC keeps, which DVC brings along by itself, nor for an
    absolute path.

    Raises
    ------
    InputError
        If there is no such data set, or DVC cannot copy it to the same relative path.
    """
    path = Path(dataset)
    if not path.is_absolute():
        from dvc.api import DVCFileSystem  # not at the top of the file: DVC takes half a second

        head = DVCFileSystem(rev="HEAD")
        if head.exists(dataset):
            return []
        if ".." in path.parts or not head.exists(str(path.parent)):
            raise InputError(
                f"dataset is {dataset!r}, which an experiment in a folder of its own does not "
                "find; give its absolute path, or `dvc add` it and commit"
            )
    if not path.exists():
        raise InputError(f"dataset is {dataset!r}, which does not exist")
    return [] if path.is_absolute() else ["--copy-paths", dataset]
