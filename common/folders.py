"""Read folders of images: what they hold, in files that DVC sees and that can be read."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from common.archives import MAX_BYTES
from common.console import InputError, run_program
from common.decoding import BadImageError
from common.layout import IGNORED, is_image


def read_file(path: str) -> bytes:
    """Return the bytes of a file; raise `BadImageError` where that fails."""
    try:
        # O_NONBLOCK, because opening a named pipe would otherwise wait for ever.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not a regular file")
            if status.st_size > MAX_BYTES:
                raise BadImageError(f"it has more than {MAX_BYTES} bytes")
            return os.read(file, status.st_size + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from None


def check_dvcignore(path: Path, files: Iterable[str | Path]) -> None:
    """Check that DVC sees all files of a data set: what it ignores may change unnoticed.

    DVC itself is asked, which takes a second, where a .dvcignore above the folder has a pattern.

    Raises
    ------
    InputError
        If it ignores one.
    """
    place = os.path.relpath(path)
    if not path.is_dir() or place.startswith(os.pardir):
        return
    patterns = [
        line
        for file in (folder / ".dvcignore" for folder in Path(place).parents)
        if file.is_file()
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    if not patterns:
        return
    done = run_program(
        [sys.executable, "-m", "dvc", "check-ignore", "--stdin"],
        input="".join(f"{file}\n" for file in files if "\n" not in str(file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    ignored = done.stdout.splitlines()
    if ignored:
        raise InputError(
            f"dataset: .dvcignore leaves out {len(ignored)} of the images, as {ignored[0]}: DVC "
            "would not notice when they change; take the pattern out, or move the images away"
        )


def list_folder(path: Path) -> tuple[list[Path], list[Path]]:
    """Return what a folder holds, sorted, and which of it are folders; nothing of a file."""
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        inside = [entry for entry in inside if not IGNORED.search(entry.name)]
        return inside, [entry for entry in inside if entry.is_dir()]
    except OSError as error:
        raise InputError(f"dataset: {error.filename} cannot be read: {error.strerror}") from None


def walk(folder: Path, *, follow_links: bool = False) -> list[str]:
    """Return the files below a folder, relative to it.

    Parameters
    ----------
    folder : Path
        Where to look.
    follow_links : bool, default False
        Whether to look into folders that links lead to. Links to files are files.

    Raises
    ------
    InputError
        If a folder cannot be read, a name is not UTF-8, or there is a link to a folder which is not
        to be followed or leads into a folder that was there already.
    """
    names: list[str] = []
    visited = set()
    waiting = [("", str(folder))]
    while waiting:
        prefix, parent = waiting.pop()
        if follow_links:
            real_path = os.path.realpath(parent)
            if real_path in visited:
                raise InputError(f"{parent} is a link to a folder that is in the data set already")
            visited.add(real_path)
        try:
            with os.scandir(parent) as found:
                entries = [entry for entry in found if not IGNORED.search(entry.name)]
        except OSError as error:
            raise InputError(f"{parent} cannot be read: {error.strerror}") from None
        for entry in entries:
            is_folder = (
                leads_to_folder(entry, is_allowed=follow_links)
                if entry.is_symlink()
                else entry.is_dir()
            )
            if is_folder:
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            else:
                names.append(prefix + entry.name)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder} holds a name that is not UTF-8: {name!r}") from None
    return names


def leads_to_folder(link: os.DirEntry, *, is_allowed: bool) -> bool:
    """Tell whether a link leads to a folder; refuse it where that is not allowed.

    A link that leads nowhere is refused, too, but for an image, which is named with those that
    cannot be read.
    """
    try:
        is_folder = stat.S_ISDIR(link.stat().st_mode)
    except OSError as error:
        if is_image(link.name) or is_allowed:
            return False
        raise InputError(
            f"{link.path} is a link that cannot be followed: {error.strerror}; repair or remove it"
        ) from None
    if is_folder and not is_allowed:
        raise InputError(
            f"{link.path} is a link to a folder, which DVC does not follow: it would not notice "
            "when an image changes. Put the folder itself there, or make the data set a zip archive"
        )
    return is_folder
