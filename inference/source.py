"""Say where the trained model comes from, before it is exported: the first step of `make export`.

    python -m inference.source

Reads   models/mnist_cnn_model.h5, dvc.lock, the history of dvc.lock in Git
Writes  models/source.json: the model's MD5, and the commit that first named it

It is a program of its own, as it takes a moment and the export imports TensorFlow: what cannot be
exported is said at once.
"""

import json
import subprocess
from pathlib import Path

from common.console import InputError, run
from common.outputs import replacing
from common.params import parse_yaml
from inference.exported import TRAINED, md5_of

LOCK = Path("dvc.lock")
SOURCE = Path("models/source.json")


def first_commit_with(md5: str) -> str | None:
    """Return the commit whose dvc.lock first named a file of this MD5.

    None if no commit did, or there is no Git repository.
    """
    command = ["git", "log", f"-S{md5}", "--reverse", "--format=%H", "--", str(LOCK)]
    try:
        commits = subprocess.run(command, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:  # no Git on this machine
        return None
    return commits[0] if commits else None


def evaluated_md5() -> str | None:
    """Return the MD5 of the model that metrics/evaluate.json judges, by dvc.lock; None if none."""
    lock = parse_yaml(LOCK.read_bytes(), str(LOCK)) if LOCK.exists() else None
    try:
        deps = lock["stages"]["evaluate"]["deps"]  # type: ignore[index]  # checked by the except
        return next(dep["md5"] for dep in deps if dep["path"] == str(TRAINED))
    except (TypeError, KeyError, StopIteration):
        return None


def main() -> None:
    """Write where the model comes from."""
    if not TRAINED.exists():
        raise InputError("no model is trained yet; `make repro` trains one")
    md5 = md5_of(TRAINED)
    if evaluated_md5() != md5:
        raise InputError(
            f"{LOCK} names no evaluation of the {TRAINED} that is there; `make repro` evaluates it"
        )
    source = {"model_md5": md5, "commit": first_commit_with(md5)}
    with replacing(SOURCE) as partial:
        partial.write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run("export", main)
