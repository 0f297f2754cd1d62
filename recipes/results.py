"""Run every recipe with five seeds and write what came of it: `make results`.

Reads   recipes/*.yaml; recipes/results.csv and errors.csv, the runs that there are already
Writes  recipes/results.csv: a row a run; it is not run again while its recipe stays as it is
        recipes/errors.csv: a row for each test image that a run of `accurate` gets wrong
        recipes/errors.png: the images that every run of `accurate` gets wrong
        README.md and RESULTS.md: the table, between its two markers

Each run is a DVC experiment in a temporary folder, named after recipe, seed and commit.
"""

import json
import re
import subprocess
from io import StringIO
from pathlib import Path

import dvc.api
import numpy as np
import pandas as pd
from scipy import stats

from recipes.run import FOLDER, RECIPES, command, read_recipe
from review.commands import brought_along
from review.revision import git
from stages.console import InputError, run_program
from stages.console import run as run_main
from stages.figures import draw_misclassified
from stages.images import decode, open_dataset
from stages.load import LoadParams
from stages.outputs import replacing
from stages.params import PARAMS, parse_yaml, read_params

SEEDS = range(42, 47)
RESULTS, ERRORS, PICTURE = (FOLDER / f for f in ("results.csv", "errors.csv", "errors.png"))
PICTURED = "accurate"
PAGES = (Path("README.md"), Path("RESULTS.md"))
MARKERS = ("<!-- results: written by `make results` -->\n", "<!-- end of results -->\n")
SECONDS = re.compile(r"^train: epoch .*; ([0-9.]+) s$", re.MULTILINE)


def read(path: Path) -> pd.DataFrame:
    """Return the rows of results.csv or errors.csv."""
    return pd.read_csv(path, dtype={"actual": str, "predicted": str})


def settings(recipe: str) -> str:
    """Return the parameters of a recipe in one line."""
    return json.dumps(read_recipe(recipe))


def is_done(results: pd.DataFrame, recipe: str, seed: int) -> bool:
    """Return whether there is a row of this run, with the settings that the recipe has now."""
    same = (results["recipe"] == recipe) & (results["seed"] == seed)
    return bool((same & (results["settings"] == settings(recipe))).any())


def check_committed() -> None:
    """Check that a run, which is named after HEAD, is one of HEAD.

    Raises
    ------
    InputError
        If the working tree differs from HEAD, but in what this program writes.
    """
    written = (*(f"recipes/{path.name}" for path in (RESULTS, ERRORS, PICTURE)), *PAGES)
    words = ("--untracked-files=no", "--", ".", *(f":(exclude){path}" for path in written))
    changed = (git("status", "--porcelain", *words) or b"").decode().splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed)
        raise InputError(f"the working tree differs from HEAD in {names}; commit or undo it first")


def run(recipe: str, seed: int) -> None:
    """Run an experiment and keep its results in place of earlier ones.

    The training time is what `train` says of its epochs, validation included, without the
    import of TensorFlow.
    """
    check_committed()
    print(f"results: {recipe}, seed {seed}", flush=True)
    head = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    name = f"{recipe}-{seed}-{head}"
    words = [*command(recipe, seed, name), "--temp", "--force"]
    params = parse_yaml(PARAMS.read_bytes(), str(PARAMS)) | read_recipe(recipe)
    words += brought_along(str(params["dataset"]))
    done = run_program(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"`{' '.join(words)}` failed; what is above says why")
    metrics = dvc.api.metrics_show(rev=name)
    predictions = pd.read_csv(StringIO(dvc.api.read("plots/predictions.csv", rev=name)), dtype=str)
    result = {
        "recipe": recipe,
        "seed": seed,
        "parameters": metrics["parameters"],
        "train_seconds": round(sum(map(float, SECONDS.findall(done.stdout))), 1),
        "test_images": len(predictions),
        "errors": metrics["errors"],
        "test_accuracy": metrics["test_accuracy"],
        "settings": settings(recipe),
    }
    wrong = predictions[predictions["actual"] != predictions["predicted"]].assign(seed=seed)
    if recipe == PICTURED:
        earlier = read(ERRORS)
        keep(ERRORS, earlier[earlier["seed"] != seed], wrong)
    earlier = read(RESULTS)
    others = earlier[(earlier["recipe"] != recipe) | (earlier["seed"] != seed)]
    keep(RESULTS, others, pd.DataFrame([result]))


def keep(path: Path, earlier: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Write earlier rows and new ones, in the columns and the order of the earlier."""
    columns = list(earlier.columns)
    with replacing(path) as partial:
        pd.concat([earlier, rows[columns]]).sort_values(columns[:2]).to_csv(partial, index=False)


def table(results: pd.DataFrame) -> str:
    """Return the table of the recipes.

    Parameters
    ----------
    results : DataFrame
        The rows of results.csv.

    Returns
    -------
    str
        Markdown, the most accurate recipe last. Mean, standard deviation and, by Student's t,
        the interval of the mean are those of the runs; the training time is their mean.
    """
    lines = [
        "| recipe | parameters | training | test accuracy | 95% interval of the mean | errors of "
        "10,000, by seed from 42 | command |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for recipe in results.groupby("recipe")["test_accuracy"].mean().sort_values().index:
        runs = results[results["recipe"] == recipe].sort_values("seed")
        accuracy = 100 * runs["test_accuracy"]
        mean, deviation = accuracy.mean(), accuracy.std()
        low, high = stats.t.interval(0.95, len(runs) - 1, mean, stats.sem(accuracy))
        cells = [
            f"`{recipe}`",
            f"{runs['parameters'].iloc[0]:,}",
            f"{runs['train_seconds'].mean():.0f} s",
            f"{mean:.3f}% ± {deviation:.3f}",
            f"{low:.3f}% to {high:.3f}%",
            ", ".join(map(str, runs["errors"])),
            f"`make recipe NAME={recipe}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_between_markers(page: Path, text: str) -> None:
    """Replace what stands between the two markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    with replacing(page) as partial:
        partial.write_text(f"{before}{MARKERS[0]}{text}{MARKERS[1]}{after}", encoding="utf-8")


def common(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the images that every run gets wrong, by name.

    Returns
    -------
    DataFrame
        ``actual``; ``predicted``, by most runs; ``confidence``, the mean, by which they are
        sorted.
    """
    groups = errors.groupby("image")
    rows = groups.agg(
        runs=("seed", "size"),
        actual=("actual", "first"),
        predicted=("predicted", lambda labels: labels.mode()[0]),
        confidence=("confidence", "mean"),
    )
    return rows[rows["runs"] == len(SEEDS)].sort_values("confidence", ascending=False)


def draw_common(errors: pd.DataFrame) -> None:
    """Draw the images that every run gets wrong."""
    mistakes = common(errors)
    params = read_params(LoadParams)
    dataset = open_dataset(Path(params.dataset))
    numbers = {name: number for number, name in enumerate(dataset.names)}
    images = [decode(dataset.read(numbers[name]), params.image_size) for name in mistakes.index]
    title = f"The {len(images)} test images that every run of `{PICTURED}` gets wrong"
    with replacing(PICTURE) as partial:
        draw_misclassified(np.array(images), mistakes, title, partial)


def main() -> None:
    """Run what has not been run; write the pages anew."""
    for recipe in RECIPES:
        for seed in SEEDS:
            if not is_done(read(RESULTS), recipe, seed):
                run(recipe, seed)
    results = read(RESULTS)
    for page in PAGES:
        write_between_markers(page, table(results))
    draw_common(read(ERRORS))


if __name__ == "__main__":
    run_main("results", main)
