"""How a stage writes its outputs: whole or not at all."""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write beside, then rename: `path` holds the old content until the new is complete.

    Parameters
    ----------
    path : Path
        The output, a file or a folder.

    Yields
    ------
    Path
        Where to write instead. It takes the place of `path` when the ``with`` block ends,
        and is removed when the block fails.
    """
    partial = temporary_path(path)
    try:
        yield partial
        if path.is_dir():
            remove(path)
        os.replace(partial, path)
    finally:
        remove(partial)


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Put a file back as it was if the ``with`` block, which writes it early, fails.

    A copy is made before: when the block fails, the disk may be full.
    """
    earlier = temporary_path(path, "earlier")
    try:
        if path.exists():
            shutil.copyfile(path, earlier)
        try:
            yield
        except BaseException:
            if earlier.exists():
                os.replace(earlier, path)
            else:
                remove(path)
            raise
    finally:
        remove(earlier)


def temporary_path(path: Path, kind: str = "new") -> Path:
    """Return a path beside an output that no other process uses.

    What processes that were killed have left there is removed.

    Parameters
    ----------
    path : Path
        The output. Its folder is made.
    kind : str
        Tells apart what one process keeps beside the same output.

    Returns
    -------
    Path
        Nothing is there yet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path, kind)
    return path.with_name(f"{path.name}.{kind}.{os.getpid()}.partial")


def remove_leftovers(path: Path, kind: str = "*") -> None:
    """Remove what processes that were killed have left beside an output; of any kind, or of one."""
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.{kind}.*.partial"):
        process = int(leftover.suffixes[-2][1:])
        if process == os.getpid() or not is_running(process):
            remove(leftover)


def is_running(process: int) -> bool:
    """Return whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write values as `dvc metrics` reads them, one key a line."""
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
