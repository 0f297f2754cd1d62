"""Run a recipe as a DVC experiment, in the workspace: `make recipe NAME=accurate SEED=43`.

A recipe is a file of this folder: the parameters in which it differs from params.yaml.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent


def settings(recipe: str) -> list[str]:
    """Return the parameters of a recipe as `dvc exp run -S` takes them."""
    values = yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in values.items()]


def command(recipe: str, seed: int) -> list[str]:
    """Return the command that runs a recipe as an experiment, named after it and its seed."""
    words = ["dvc", "exp", "run", "--name", f"{recipe}-{seed}"]
    return words + [f"-S{one}" for one in [f"seed={seed}", *settings(recipe)]]


if __name__ == "__main__":
    recipes = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    name, seed = sys.argv[1:]
    if name not in recipes:
        sys.exit(f"recipes: no recipe {name!r}; there are {', '.join(recipes)}")
    sys.exit(subprocess.run(command(name, int(seed))).returncode)
