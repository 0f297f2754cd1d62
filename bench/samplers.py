"""Compare what TPE and random search find with as many trials of the same space.

    python -m bench.samplers [REPETITIONS]

Each repetition is a search of its own: what `make search` asks for its proposals, and which trials
it stops, are asked here, and the stages are called one after the other in this process, with so
few images and epochs that a trial takes seconds. What each search calls the best is then trained
with fresh seeds. The table is printed and written into docs/search.md; with 5 repetitions it
takes a quarter of an hour.
"""

import argparse
import json
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from scipy import stats

from bench.commands import ROOT
from bench.pages import table
from common.backend import keras, use_threads
from common.console import progress, run
from common.pages import replace_between_markers
from search.space import Space, Values, read_space
from search.study import Settings, Study
from stages import define, load, train

PAGE = ROOT / "docs" / "search.md"
BEGIN = "<!-- samplers: written by `python -m bench.samplers` -->\n"
END = "<!-- end of samplers -->\n"
SPACE = ROOT / "spaces" / "default.yaml"
CHEAP = {"train_images": 1000, "validation_images": 2000, "test_images": 100, "epochs": 3}
TRIALS, FRESH = 30, 3
SAMPLERS = ("tpe", "random")
yaml = YAML(typ="safe")


def trained(values: Values) -> list[float]:
    """Return the validation accuracy after each epoch of a training, in the current folder."""
    yaml.dump(values, Path("params.yaml"))
    keras.backend.clear_session()
    with redirect_stdout(None):
        define.main()
        train.main()
    rows = Path("plots/training.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[-1]) for row in rows]


def searched(sampler: str, seed: int, space: Space, params: Values) -> tuple[float, float]:
    """Search once; return the accuracy of the best trial, and of its setting with fresh seeds."""
    settings = Settings("", "accuracy", sampler, 1, {})
    study = Study(f"{sampler}{seed}", settings, space, seed, "")
    while trial := study.next_trial(TRIALS):
        curve = trained(params | space.values_of(trial.params) | {"seed": seed})
        state = "pruned" if study.stop_after(trial, curve) else "finished"
        study.end(trial, state, curve[-1] if state == "finished" else None)
    best = study.best()
    assert best is not None
    values = params | space.values_of(best.params)
    fresh = [trained(values | {"seed": seed + 1000 + k})[-1] for k in range(FRESH)]
    return float(best.value or 0), float(np.mean(fresh))


def main() -> None:
    """Run the searches, print what came of them, and write it into the page."""
    parser = argparse.ArgumentParser(prog="bench.samplers", description=__doc__.splitlines()[0])
    parser.add_argument("repetitions", nargs="?", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    params = yaml.load(ROOT / "params.yaml") | {"dataset": str(ROOT / "data/mnist-jpg.zip")}
    use_threads(params["threads"])  # before anything computes
    whole = read_space(SPACE, params)
    space = Space(whole.fixed | CHEAP, whole.distributions)
    found: dict[str, list[tuple[float, float]]] = {sampler: [] for sampler in SAMPLERS}
    total = repetitions * len(SAMPLERS)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        yaml.dump(params | CHEAP, Path("params.yaml"))
        for name in ("data/prepared", "metrics", "models", "plots"):
            Path(name).mkdir(parents=True)
        load.main()
        with progress("samplers", total, "searches") as bar:
            for seed in range(1, repetitions + 1):
                for sampler in SAMPLERS:
                    found[sampler].append(searched(sampler, seed, space, params))
                    print(
                        json.dumps({"sampler": sampler, "seed": seed, "found": found[sampler][-1]})
                    )
                    bar.update()
    lines = [
        [
            f"`{sampler}`",
            f"{np.mean([best for best, _ in results]):.2%}",
            f"{np.mean([fresh for _, fresh in results]):.2%}",
            ", ".join(f"{fresh:.2%}" for _, fresh in results),
        ]
        for sampler, results in found.items()
    ]
    differences = np.subtract(*([fresh for _, fresh in found[sampler]] for sampler in SAMPLERS))
    low, high = 100 * np.array(
        stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    )
    header = ["sampler", "best trial", "its setting, fresh seeds", "by repetition"]
    text = (
        f"{table(header, lines)}\n\n`tpe` less `random`, in the mean: "
        f"{100 * np.mean(differences):+.2f} points, 95% interval {low:+.2f} to {high:+.2f}.\n"
    )
    print(text)
    replace_between_markers(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    run("samplers", main)
