"""How a stage writes its outputs: whole or not at all."""

import contextlib
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
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir():
            remove(path)
        os.replace(partial, path)
    finally:
        remove(partial)


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Put a file back as it was if the ``with`` block, which writes it early, fails."""
    earlier = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if earlier is None:
            remove(path)
        else:
            with replacing(path) as partial:
                partial.write_bytes(earlier)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, float]) -> None:
    """Write metrics as `dvc metrics` reads them, one key a line."""
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
