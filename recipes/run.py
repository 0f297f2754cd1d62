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


def settings(recipe: str) -> list[str]:
    """Return the parameters of a recipe as `dvc exp run -S` takes them."""
    values = yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in values.items()]


def main() -> int:
    """Run a recipe; return DVC's exit status."""
    parser = argparse.ArgumentParser(prog="make recipe", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", choices=RECIPES, help=", ".join(RECIPES))
    parser.add_argument("seed", metavar="SEED", type=int)
    words = parser.parse_args()
    changes = [f"-S{one}" for one in [f"seed={words.seed}", *settings(words.name)]]
    name = f"{words.name}-{words.seed}"
    return subprocess.run(["dvc", "exp", "run", "--name", name, *changes]).returncode


if __name__ == "__main__":
    sys.exit(main())
