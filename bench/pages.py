"""The part of a page that a benchmark writes: on which machine it ran, and what it measured."""

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

from common.pages import replace_between_markers

PACKAGES = ("tensorflow", "keras", "dvc", "opencv-python-headless", "numpy")
END = "<!-- end of what was measured -->\n"


def describe_machine() -> str:
    """Return the date, the processor, the operating system and the versions that matter."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux
    processor = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, "
        f"{processor[1] if processor else platform.processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {versions}"
    )


def measured_text(command: str, *paragraphs: str) -> str:
    """Return what was measured in Markdown, below a line that names the command and the machine."""
    return "\n\n".join([f"`{command}`: {describe_machine()}.", *paragraphs]) + "\n"


def write_measured(page: Path, command: str, text: str) -> None:
    """Write what a command measured into a page, between its markers."""
    begin = f"<!-- measured: written by `{command}` -->\n"
    replace_between_markers(page, begin, END, text)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown.

    Examples
    --------
    >>> print(table(["images", "s"], [["10", "1.2"]]))
    | images | s |
    | --- | --- |
    | 10 | 1.2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
