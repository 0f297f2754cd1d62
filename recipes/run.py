"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=accurate SEED=43`.

A recipe is a file of this folder: the parameters in which it differs from params.yaml.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(recipe: str) -> dict[str, object]:
    """Return the parameters of a recipe."""
    return yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8"))


def command(recipe: str, seed: int, name: str) -> list[str]:
    """Return the command that runs a recipe as an experiment of that name."""
    values = {"seed": seed} | read_recipe(recipe)
    changes = (f"-S{key}={json.dumps(v, separators=(',', ':'))}" for key, v in values.items())
    return ["dvc", "exp", "run", "--name", name, *changes]


def main() -> int:
    """Run a recipe; return DVC's exit status."""
    parser = argparse.ArgumentParser(prog="make recipe", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", choices=RECIPES, help=", ".join(RECIPES))
    parser.add_argument("seed", metavar="SEED", type=int)
    words = parser.parse_args()
    return subprocess.run(command(words.name, words.seed, f"{words.name}-{words.seed}")).returncode


if __name__ == "__main__":
    sys.exit(main())
