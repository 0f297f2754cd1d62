"""What the programs behind the Makefile share: its variables, and what it brings along."""

import re
from pathlib import Path

from dvc.api import DVCFileSystem

from stages.console import InputError


def whole_number(variable: str, text: str, lowest: int, highest: int | None = None) -> int:
    """Return the number that a variable of the Makefile was given.

    Parameters
    ----------
    variable : str
        Its name, as the user typed it: ``JOBS``.
    text : str
        What it was given.
    lowest, highest : int, int or None
        What is allowed; None: there is no highest.

    Raises
    ------
    InputError
        If the text is not a whole number, or one that is not allowed.
    """
    if re.fullmatch("[0-9]{1,18}", text):
        number = int(text)
        if lowest <= number and (highest is None or number <= highest):
            return number
    allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    raise InputError(f"{variable} is {text!r}; it must be a whole number, {allowed}")


def brought_along(dataset: str) -> list[str]:
    """Return the words that make DVC copy a data set into the folder of an experiment.

    DVC brings along by itself what Git or DVC keeps, and an absolute path needs no copy.

    Raises
    ------
    InputError
        If DVC cannot copy it to the same relative path.
    """
    path, head = Path(dataset), DVCFileSystem(rev="HEAD")
    if path.is_absolute() or head.exists(dataset):
        return []
    if ".." in path.parts or not head.exists(str(path.parent)):
        raise InputError(
            f"dataset is {dataset!r}, which an experiment in a folder of its own does not find; "
            "give its absolute path, or `dvc add` it and commit"
        )
    return ["--copy-paths", dataset]
