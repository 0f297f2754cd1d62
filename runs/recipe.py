"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=mine SEED=43`.

    python -m runs.recipe NAME SEED CHANGES

A recipe is a YAML file in recipes/. It holds the parameters in which it differs from the
params.yaml of the last commit. CHANGES are further parameters, all in one argument, quoted as
for a shell: `epochs=3 ema=0.9`.
"""

import argparse
import json
import shlex
from pathlib import Path

from common.console import InputError, importing, run, run_program
from common.params import PARAMS, parse_yaml
from review.git import check_place, git
from runs.commands import whole_number
from runs.committed import committed_params

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


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


def run_experiment(command: list[str], tried: dict[str, object]) -> int:
    """Run an experiment in the workspace; return the exit status of DVC.

    It starts from the committed params.yaml, after `check_params`. If it fails, params.yaml gets
    back what it held, because no experiment holds the parameters of a run that failed, unless
    somebody has edited it meanwhile.

    Parameters
    ----------
    command : list of str
        From `experiment_command`.
    tried : dict of str to object
        The parameters that DVC writes for it into params.yaml.
    """
    before = PARAMS.read_bytes()
    restore_params()
    status = 1
    try:
        status = run_program(command).returncode
    finally:
        if status != 0 and workspace_values() in (tried, committed_values()):
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
    with importing("recipe"):  # it takes a second: pandas and DVC
        from runs.experiments import changed_params, check_identity, free_name

    changed_params(f"recipes/{recipe}.yaml", assignments(recipe, seed))
    changed_params("SET", changes)
    check_identity()
    tried = changed_params(recipe, [*assignments(recipe, seed), *changes])
    name = free_name("-".join([recipe, str(seed), *changes]))
    return run_experiment(experiment_command(recipe, seed, name, *changes), tried)


if __name__ == "__main__":
    run("recipe", main)
