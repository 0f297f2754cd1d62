"""Run every recipe with five seeds and write what came of it: `make results`.

Reads   recipes/*.yaml; recipes/results.csv and errors.csv, the runs that there are already
Writes  recipes/results.csv: a row a run; it is not run again while its recipe stays as it is
        recipes/errors.csv: a row for each test image that a run gets wrong
        recipes/errors.png: the images that every run of `accurate` gets wrong
        README.md and RESULTS.md: the table, between its two markers

Each run is a DVC experiment in a temporary folder, named after recipe and seed.
"""

import re
import subprocess
from io import StringIO
from pathlib import Path

import dvc.api
import numpy as np
import pandas as pd
import yaml
from scipy import stats

from recipes.run import FOLDER, command, settings
from stages.figures import draw_misclassified
from stages.images import decode, open_dataset

RECIPES = ("notebook", "full", "fast", "accurate", "fashion")
SEEDS = range(42, 47)
RESULTS, ERRORS, PICTURE = (FOLDER / f for f in ("results.csv", "errors.csv", "errors.png"))
PAGES = (Path("README.md"), Path("RESULTS.md"))
MARKERS = ("<!-- results: written by `make results` -->\n", "<!-- end of results -->\n")
SECONDS = re.compile(r"^train: epoch .*; ([0-9.]+) s$", re.MULTILINE)


def main() -> None:
    """Run what has not been run; write the pages anew."""
    for recipe in RECIPES:
        for seed in SEEDS:
            if not is_done(recipe, seed):
                run(recipe, seed)
    results = read(RESULTS)
    for page in PAGES:
        write_between_markers(page, table(results))
    draw_common_errors(read(ERRORS))


def read(path: Path) -> pd.DataFrame:
    """Return the rows of results.csv or errors.csv."""
    return pd.read_csv(path, dtype={"actual": str, "predicted": str})


def is_done(recipe: str, seed: int) -> bool:
    """Return whether there is a row of this run, with the settings that the recipe has now."""
    rows = read(RESULTS)
    same = (rows["recipe"] == recipe) & (rows["seed"] == seed)
    return bool((same & (rows["settings"] == " ".join(settings(recipe)))).any())


def run(recipe: str, seed: int) -> None:
    """Run an experiment and keep its results in place of earlier ones.

    The training time is what `train` says of its epochs: training and validation, without the
    import of TensorFlow.
    """
    print(f"results: {recipe}, seed {seed}", flush=True)
    words = [*command(recipe, seed), "--temp", "--force"]
    lines = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    name = f"{recipe}-{seed}"
    metrics = dvc.api.metrics_show(rev=name)
    predictions = pd.read_csv(StringIO(dvc.api.read("plots/predictions.csv", rev=name)), dtype=str)
    result = {
        "recipe": recipe,
        "seed": seed,
        "parameters": metrics["parameters"],
        "train_seconds": round(sum(map(float, SECONDS.findall(lines))), 1),
        "test_images": len(predictions),
        "errors": metrics["errors"],
        "test_accuracy": metrics["test_accuracy"],
        "settings": " ".join(settings(recipe)),
    }
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    wrong = wrong.assign(recipe=recipe, seed=seed).astype({"confidence": float})
    for path, rows in ((RESULTS, pd.DataFrame([result])), (ERRORS, wrong)):
        earlier = read(path)
        others = earlier[(earlier["recipe"] != recipe) | (earlier["seed"] != seed)]
        pd.concat([others, rows[earlier.columns]]).to_csv(path, index=False)


def table(results: pd.DataFrame) -> str:
    """Return the table of the recipes.

    Parameters
    ----------
    results : DataFrame
        The rows of results.csv.

    Returns
    -------
    str
        Markdown. The interval is that of the mean, by Student's t.
    """
    lines = [
        "| recipe | parameters | training | test accuracy | 95% interval of the mean | errors of "
        "10,000, by seed | command |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for recipe in RECIPES:
        runs = results[results["recipe"] == recipe].sort_values("seed")
        accuracy = 100 * runs["test_accuracy"]
        mean, deviation = accuracy.mean(), accuracy.std()
        half = stats.t.ppf(0.975, len(runs) - 1) * deviation / np.sqrt(len(runs))
        cells = [
            f"`{recipe}`",
            f"{runs['parameters'].iloc[0]:,}",
            f"{runs['train_seconds'].median():.0f} s",
            f"{mean:.3f}% ± {deviation:.3f}",
            f"{mean - half:.3f}% to {mean + half:.3f}%",
            ", ".join(map(str, runs["errors"])),
            f"`make recipe NAME={recipe}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_between_markers(page: Path, text: str) -> None:
    """Replace what stands between the two markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    page.write_text(f"{before}{MARKERS[0]}{text}{MARKERS[1]}{after}", encoding="utf-8")


def draw_common_errors(errors: pd.DataFrame) -> None:
    """Draw the images that every run of `accurate` gets wrong, and what most of them say."""
    groups = errors[errors["recipe"] == "accurate"].groupby("image")
    common = groups.agg(
        runs=("seed", "size"),
        actual=("actual", "first"),
        predicted=("predicted", lambda labels: labels.mode()[0]),
        confidence=("confidence", "mean"),
    )
    common = common[common["runs"] == len(SEEDS)].sort_values("confidence", ascending=False)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    dataset = open_dataset(Path(params["dataset"]))
    number = {name: place for place, name in enumerate(dataset.names)}
    images = [decode(dataset.read(number[name]), params["image_size"]) for name in common.index]
    title = f"The {len(images)} test images that every run of `accurate` gets wrong"
    draw_misclassified(np.array(images), common, title, PICTURE)


if __name__ == "__main__":
    main()
