"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=accurate SEED=43`.

A recipe is a file of this folder: the parameters in which it differs from params.yaml.
"""

import argparse
import json
from pathlib import Path

from stages.console import run, run_program
from stages.params import parse_yaml

FOLDER = Path(__file__).parent
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(recipe: str) -> dict[str, object]:
    """Return the parameters of a recipe."""
    path = FOLDER / f"{recipe}.yaml"
    return parse_yaml(path.read_bytes(), str(path))


def command(recipe: str, seed: int, name: str, *changes: str) -> list[str]:
    """Return the command that runs a recipe, with changes, as an experiment of that name."""
    values = {"seed": seed} | read_recipe(recipe)
    settings = [f"{key}={json.dumps(v, separators=(',', ':'))}" for key, v in values.items()]
    return ["dvc", "exp", "run", "--name", name, *(f"-S{s}" for s in (*settings, *changes))]


def main() -> int:
    """Run a recipe; return DVC's exit status."""
    parser = argparse.ArgumentParser(prog="make recipe", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", choices=RECIPES, help=", ".join(RECIPES))
    parser.add_argument("seed", metavar="SEED", type=int)
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*")
    words = parser.parse_args()
    name = f"{words.name}-{words.seed}"
    return run_program(command(words.name, words.seed, name, *words.changes)).returncode


if __name__ == "__main__":
    run("recipe", main)
