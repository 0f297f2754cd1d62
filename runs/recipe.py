"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=mine SEED=43`.

    python -m runs.recipe NAME SEED CHANGES

A recipe is a YAML file in recipes/. It holds the parameters in which it differs from the
params.yaml of the last commit. CHANGES are further parameters, all in one argument, quoted as
for a shell: `epochs=3 ema=0.9`.
"""

import argparse
import json
import os
import re
import shlex
import tempfile
from pathlib import Path

from common.console import InputError, run, run_program
from common.params import PARAMS, parse_yaml
from review.git import check_place, git
from runs.commands import whole_number

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NAME_LENGTH = 100  # characters, as Git keeps the name of an experiment as the name of a file


def parse_mapping(content: bytes, name: str) -> dict[str, object]:
    """Return the `key: value` lines of a YAML file.

    Parameters
    ----------
    content : bytes
        The text.
    name : str
        What the error calls it.

    Raises
    ------
    InputError
        If it is not YAML, or something else than such lines.
    """
    values = parse_yaml(content, name)
    if not isinstance(values, dict):
        raise InputError(f"{name} must be a mapping of `key: value` lines")
    return values


def read_recipe(recipe: str) -> dict[str, object]:
    """Return the parameters of a recipe."""
    path = FOLDER / f"{recipe}.yaml"
    return parse_mapping(path.read_bytes(), f"recipes/{path.name}")


def assignments(recipe: str, seed: int) -> list[str]:
    """Return the seed and the parameters of a recipe, as ``dvc exp run -S`` takes them."""
    return as_changes({"seed": seed, "evaluate_on": "test"} | read_recipe(recipe))


def as_changes(values: dict[str, object]) -> list[str]:
    """Return parameters as ``dvc exp run -S`` takes them, ``KEY=VALUE`` each."""
    return [f"{key}={json.dumps(v, separators=(',', ':'))}" for key, v in values.items()]


def experiment_command(recipe: str, seed: int, name: str, *changes: str) -> list[str]:
    """Return the command that runs a recipe as an experiment.

    Parameters
    ----------
    recipe : str
        Which one.
    seed : int
        The seed.
    name : str
        What the experiment is called.
    changes : str
        ``KEY=VALUE`` each; they come last, so that they count where the recipe says otherwise.
    """
    options = [f"-S{assignment}" for assignment in (*assignments(recipe, seed), *changes)]
    return ["dvc", "exp", "run", "--name", name, *options]


def free_name(description: str) -> str:
    """Return a name that no experiment has which started from HEAD.

    It is the description, as far as Git allows its characters in a name. If an experiment of that
    name exists, a number is added.
    """
    # Not at the top of the file: it imports pandas and DVC, which take a second.
    from review.revision import experiments, resolve

    name = re.sub(r"[^A-Za-z0-9_.]+|\.\.+", "-", description)[:NAME_LENGTH].strip("-.")
    head = resolve("HEAD").commit
    taken = {experiment for experiment, _, parent in experiments() if parent == head}
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def committed_params() -> bytes:
    """Return params.yaml as the last commit has it."""
    content = git("cat-file", "blob", f"HEAD:./{PARAMS}")
    if content is None:
        raise InputError(f"HEAD has no {PARAMS}; run from the root of the repository")
    return content


def check_changes(origin: str, changes: list[str]) -> None:
    """Check that DVC can apply changes to the committed parameters.

    Parameters
    ----------
    origin : str
        Where the changes come from, for the error.
    changes : list of str
        ``KEY=VALUE`` each.

    Raises
    ------
    InputError
        If one is not of that form, or its key is not in params.yaml.
    """
    # Not at the top of the file: they take half a second.
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides
    from dvc.utils.serialize import YAMLError

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
    """Return whether a commit or a finished experiment holds a file with its present content."""
    blob = (git("hash-object", "--", str(path)) or b"").decode().strip()
    references = ("--branches", "--remotes", "--tags", "--glob=refs/exps/??/*")
    return bool(git("log", "-1", "--format=%H", f"--find-object={blob}", "HEAD", *references))


def check_params() -> None:
    """Check that params.yaml may be given the committed values: nothing would be lost by that.

    Raises
    ------
    InputError
        If its values are others, and its present content was neither committed nor run as an
        experiment.
    """
    committed, current = committed_values(), workspace_values()
    if current != committed and not is_kept(PARAMS):
        keys = [key for key in committed | current if committed.get(key) != current.get(key)]
        raise InputError(
            f"{PARAMS} differs from the committed one in {', '.join(keys)}, and a recipe "
            f"starts from the committed one: commit it, or undo it by `git checkout HEAD {PARAMS}`"
        )


def committed_values() -> dict[str, object]:
    """Return the values of params.yaml as the last commit has them."""
    return parse_mapping(committed_params(), f"{PARAMS} of HEAD")


def workspace_values() -> dict[str, object]:
    """Return the values of params.yaml as it is; none if it cannot be read."""
    try:
        return parse_mapping(PARAMS.read_bytes(), str(PARAMS))
    except InputError:
        return {}


def restore_params() -> None:
    """Give params.yaml the committed values; it keeps its comments where the values are those."""
    if workspace_values() != committed_values():
        PARAMS.write_bytes(committed_params())


def check_identity() -> None:
    """Check that Git knows the user where DVC needs it, to save the state of a changed workspace.

    Raises
    ------
    InputError
        If it does not.
    """
    for key in ("name", "email"):
        known = git("config", f"user.{key}") or os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        if not known and git("status", "--porcelain", "--untracked-files=no"):
            raise InputError(
                f"Git does not know your {key}, and dvc needs it where the workspace differs from "
                f"HEAD: git config --global user.{key} ..."
            )


def run_recipe(recipe: str, seed: int, changes: list[str]) -> int:
    """Run a recipe as an experiment in the workspace; return the exit status of DVC.

    It starts from the committed params.yaml, after `check_params`. If it fails, params.yaml gets
    back what it held, because no experiment holds the parameters of a run that failed.
    """
    before = PARAMS.read_bytes()
    restore_params()
    name = free_name("-".join([recipe, str(seed), *changes]))
    status = 1
    try:
        status = run_program(experiment_command(recipe, seed, name, *changes)).returncode
    finally:
        if status != 0:
            PARAMS.write_bytes(before)
    return status


def main() -> int:
    """Check what the user typed, and run the recipe; return the exit status of DVC."""
    parser = argparse.ArgumentParser(prog="make recipe", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("seed", metavar="SEED")
    parser.add_argument("changes", metavar="CHANGES", nargs="?", default="")
    arguments = parser.parse_args()
    recipe = arguments.name
    if recipe not in RECIPES:
        given = repr(recipe) if recipe else "not set"
        raise InputError(f"NAME is {given}; it must be one of {', '.join(RECIPES)}")
    seed = whole_number("SEED", arguments.seed, 0, 2**32 - 1)
    try:
        changes = shlex.split(arguments.changes)
    except ValueError as error:  # a quotation mark is not closed
        raise InputError(f"SET is {arguments.changes!r}: {error}") from None
    check_place()
    check_params()
    check_changes(f"recipes/{recipe}.yaml", assignments(recipe, seed))
    check_changes("SET", changes)
    check_identity()
    return run_recipe(recipe, seed, changes)


if __name__ == "__main__":
    run("recipe", main)
