"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=accurate SEED=43`.

    python -m recipes.run NAME SEED CHANGES

A recipe is a file of this folder: the parameters in which it differs from the committed
params.yaml. CHANGES are further ones, in one word, as the shell reads them: `epochs=3 ema=0.9`.
"""

import argparse
import json
import os
import re
import shlex
import tempfile
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import YAMLError

from review.commands import whole_number
from review.revision import experiments, git, resolve
from stages.console import InputError, run_program
from stages.console import run as run_main
from stages.params import PARAMS, parse_yaml

FOLDER = Path(__file__).parent
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NAME_LENGTH = 100


def read_recipe(recipe: str) -> dict[str, object]:
    """Return the parameters of a recipe."""
    path = FOLDER / f"{recipe}.yaml"
    values = parse_yaml(path.read_bytes(), f"recipes/{path.name}")
    if not isinstance(values, dict):
        raise InputError(f"recipes/{path.name} must be a mapping of `key: value` lines")
    return values


def settings(recipe: str, seed: int) -> list[str]:
    """Return the seed and the parameters of a recipe as `dvc exp run -S` takes them."""
    values = {"seed": seed} | read_recipe(recipe)
    return [f"{key}={json.dumps(v, separators=(',', ':'))}" for key, v in values.items()]


def command(recipe: str, seed: int, name: str, *changes: str) -> list[str]:
    """Return the command that runs a recipe, with changes, as an experiment of that name."""
    words = (f"-S{setting}" for setting in (*settings(recipe, seed), *changes))
    return ["dvc", "exp", "run", "--name", name, *words]


def free_name(recipe: str, seed: int, *changes: str) -> str:
    """Return a name for an experiment that no other has that started from HEAD.

    It tells recipe, seed and changes, as far as a name of Git can; a number follows where it is
    taken already.
    """
    words = "-".join([recipe, str(seed), *changes])
    name = re.sub(r"[^A-Za-z0-9_.]+|\.\.+", "-", words)[:NAME_LENGTH].strip("-.")
    head = resolve("HEAD").commit
    taken = {other for other, _, parent in experiments() if parent == head}
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def committed_params() -> bytes:
    """Return params.yaml as HEAD has it."""
    content = resolve("HEAD").read(str(PARAMS))
    if content is None:
        raise InputError(f"HEAD has no {PARAMS}; run from the root of the repository")
    return content


def check_changes(origin: str, changes: list[str]) -> None:
    """Check that dvc can change the committed parameters so.

    Raises
    ------
    InputError
        If a change is no KEY=VALUE, or its KEY is no parameter.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PARAMS)
        path.write_bytes(committed_params())
        for change in changes:
            try:
                apply_overrides(path, [change])
            except (DvcException, YAMLError) as error:
                reason = str(error.__cause__ or error).splitlines()[0]
                raise InputError(
                    f"{origin}: {change!r} must be KEY=VALUE, with a key and a value as in "
                    f"{PARAMS}: {reason}"
                ) from None


def is_kept(path: Path) -> bool:
    """Return whether a commit or a finished experiment holds a file as it is."""
    blob = (git("hash-object", "--", str(path)) or b"").decode().strip()
    where = ("--branches", "--remotes", "--tags", "--glob=refs/exps/??/*")
    return bool(git("log", "-1", "--format=%H", f"--find-object={blob}", "HEAD", *where))


def restore_params() -> None:
    """Give params.yaml the committed values, unless that would lose what nothing else holds.

    Raises
    ------
    InputError
        If it was edited, and neither committed nor run as an experiment.
    """
    content = committed_params()
    committed = parse_yaml(content, f"{PARAMS} of HEAD")
    try:
        found = parse_yaml(PARAMS.read_bytes(), str(PARAMS))
    except InputError:
        found = None
    if found == committed:
        return
    if not is_kept(PARAMS):
        found = found if isinstance(found, dict) else {}
        different = [key for key in committed | found if committed.get(key) != found.get(key)]
        raise InputError(
            f"{PARAMS} differs from the committed one in {', '.join(different)}, and a recipe "
            f"starts from the committed one: commit it, or undo it by `git checkout HEAD {PARAMS}`"
        )
    PARAMS.write_bytes(content)


def check_identity() -> None:
    """Check that dvc can save the state of a workspace that differs from HEAD."""
    for key in ("name", "email"):
        known = git("config", f"user.{key}") or os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        if not known and git("status", "--porcelain", "--untracked-files=no"):
            raise InputError(
                f"Git does not know your {key}, and dvc needs it where the workspace differs from "
                f"HEAD: git config --global user.{key} ..."
            )


def main() -> int:
    """Run a recipe; return dvc's exit status."""
    parser = argparse.ArgumentParser(prog="make recipe", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("seed", metavar="SEED")
    parser.add_argument("changes", metavar="CHANGES", nargs="?", default="")
    words = parser.parse_args()
    recipe = words.name
    if recipe not in RECIPES:
        what = repr(recipe) if recipe else "not set"
        raise InputError(f"NAME is {what}; it must be one of {', '.join(RECIPES)}")
    seed = whole_number("SEED", words.seed, 0, 2**32 - 1)
    try:
        changes = shlex.split(words.changes)
    except ValueError as error:  # a quotation mark without its fellow
        raise InputError(f"SET is {words.changes!r}: {error}") from None
    check_changes(f"recipes/{recipe}.yaml", settings(recipe, seed))
    check_changes("SET", changes)
    check_identity()
    before = PARAMS.read_bytes()
    restore_params()
    name = free_name(recipe, seed, *changes)
    status = 1
    try:
        status = run_program(command(recipe, seed, name, *changes)).returncode
    finally:
        if status != 0:
            PARAMS.write_bytes(before)  # no experiment holds those of a run that did not end well
    return status


if __name__ == "__main__":
    run_main("recipe", main)
