"""Run every recipe with five seeds and write what came of it: `make results`.

Reads   recipes/*.yaml; recipes/results.csv and errors.csv, the runs that there are already
Writes  recipes/results.csv: a row a run; it is not run again while its recipe stays as it is
        recipes/errors.csv: a row for each test image that a run of `accurate` gets wrong
        recipes/errors.png: the images that every run of `accurate` gets wrong
        README.md and docs/recipes.md: the table, between its two markers

Each run is a DVC experiment in a temporary folder, named after recipe, seed and commit.
"""

import json
import subprocess
from io import StringIO
from pathlib import Path

import dvc.api
import numpy as np
import pandas as pd
from pydantic import Field

from common.console import InputError, run, run_program
from common.datasets import open_dataset
from common.decoding import decode
from common.figures import draw_misclassified
from common.outputs import replacing
from common.pages import replace_between_markers
from common.params import PARAMS, Classes, ColorMode, ImageSize, StageParams, read_params
from common.selection import find_images
from review.git import check_place
from runs.commands import brought_along
from runs.committed import check_tree
from runs.recipe import FOLDER, RECIPES, experiment_command, parse_mapping, read_recipe
from runs.recipe_table import recipe_table

SEEDS = range(42, 47)
RESULTS, ERRORS, PICTURE = FOLDER / "results.csv", FOLDER / "errors.csv", FOLDER / "errors.png"
PICTURED = "accurate"
PAGES = (Path("README.md"), Path("docs/recipes.md"))
WRITTEN = (*(f"recipes/{path.name}" for path in (RESULTS, ERRORS, PICTURE)), *map(str, PAGES))
MARKERS = ("<!-- results: written by `make results` -->\n", "<!-- end of results -->\n")


class PictureParams(StageParams):
    """What this program reads of params.yaml, to draw images."""

    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")
    image_size: ImageSize
    color_mode: ColorMode
    classes: Classes | None = Field(
        description="a list of two or more different folder names, or null for all folders"
    )


def read_rows(path: Path) -> pd.DataFrame:
    """Return the rows of results.csv or errors.csv."""
    return pd.read_csv(path, dtype={"actual": str, "predicted": str})


def write_rows(path: Path, earlier: pd.DataFrame, new: pd.DataFrame) -> None:
    """Write earlier and new rows, in the columns of the earlier, sorted by the first two."""
    columns = list(earlier.columns)
    rows = pd.concat([earlier, new[columns]]).sort_values(columns[:2])
    with replacing(path) as new_file:
        rows.to_csv(new_file, index=False)


def settings_of(recipe: str) -> str:
    """Return the parameters of a recipe in one line, as results.csv holds them."""
    return json.dumps(read_recipe(recipe))


def is_done(results: pd.DataFrame, recipe: str, seed: int) -> bool:
    """Return whether there is a row of a run with the settings that the recipe has now."""
    is_of_run = (results["recipe"] == recipe) & (results["seed"] == seed)
    return bool((is_of_run & (results["settings"] == settings_of(recipe))).any())


def run_experiment(recipe: str, seed: int, name: str) -> float:
    """Run a recipe as an experiment in a temporary folder; return its training time in seconds.

    The time is what `train` prints of its epochs: validation counts, the import of TensorFlow
    does not.

    Raises
    ------
    InputError
        If the experiment fails.
    """
    # Not at the top of the file: it imports TensorFlow, which takes seconds.
    from common.training_loop import EPOCH_SECONDS

    params = parse_mapping(PARAMS.read_bytes(), str(PARAMS)) | read_recipe(recipe)
    copy_options = brought_along(str(params["dataset"]))
    command = [*experiment_command(recipe, seed, name), "--temp", "--force", *copy_options]
    done = run_program(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"`{' '.join(command)}` failed; what is above says why")
    return sum(float(seconds) for seconds in EPOCH_SECONDS.findall(done.stdout))


def run_recipe(recipe: str, seed: int) -> None:
    """Run a recipe, and write its results in place of those of an earlier run with this seed."""
    check_tree(*WRITTEN)
    print(f"results: {recipe}, seed {seed}", flush=True)
    head = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    name = f"{recipe}-{seed}-{head}"
    seconds = run_experiment(recipe, seed, name)
    metrics = dvc.api.metrics_show(rev=name)
    predictions = pd.read_csv(StringIO(dvc.api.read("plots/predictions.csv", rev=name)), dtype=str)
    if recipe == PICTURED:
        wrong = predictions[predictions["actual"] != predictions["predicted"]].assign(seed=seed)
        errors = read_rows(ERRORS)
        write_rows(ERRORS, errors[errors["seed"] != seed], wrong)
    result = {
        "recipe": recipe,
        "seed": seed,
        "parameters": metrics["parameters"],
        "train_seconds": round(seconds, 1),
        "test_images": len(predictions),
        "errors": metrics["errors"],
        "test_accuracy": metrics["test_accuracy"],
        "settings": settings_of(recipe),
    }
    results = read_rows(RESULTS)
    is_of_other_run = (results["recipe"] != recipe) | (results["seed"] != seed)
    write_rows(RESULTS, results[is_of_other_run], pd.DataFrame([result]))


def errors_of_every_run(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the images that every run gets wrong.

    Parameters
    ----------
    errors : DataFrame
        The rows of errors.csv.

    Returns
    -------
    DataFrame
        A row an image, by its name, with ``actual``; ``predicted``, what most runs say; and
        ``confidence``, the mean, by which the rows are sorted.
    """
    rows = errors.groupby("image").agg(
        runs=("seed", "size"),
        actual=("actual", "first"),
        predicted=("predicted", lambda labels: labels.mode()[0]),
        confidence=("confidence", "mean"),
    )
    return rows[rows["runs"] == len(SEEDS)].sort_values("confidence", ascending=False)


def draw_errors_of_every_run() -> None:
    """Draw the images that every run of the recipe `PICTURED` gets wrong."""
    mistakes = errors_of_every_run(read_rows(ERRORS))
    params = read_params(PictureParams)
    dataset = open_dataset(Path(params.dataset))
    index_of = {name: index for index, name in enumerate(dataset.names)}
    classes, _ = find_images(dataset, params.classes)
    images = [
        decode(dataset.read(index_of[name]), params.image_size, params.color_mode).pixels
        for name in mistakes.index
    ]
    title = f"The {len(images)} test images that every run of `{PICTURED}` gets wrong"
    with replacing(PICTURE) as new_picture:
        draw_misclassified(np.array(images), mistakes, classes, title, new_picture)


def main() -> None:
    """Run what has not been run, then write the pages and the picture."""
    check_place()
    for recipe in RECIPES:
        for seed in SEEDS:
            if not is_done(read_rows(RESULTS), recipe, seed):
                run_recipe(recipe, seed)
    table = recipe_table(read_rows(RESULTS))
    for page in PAGES:
        replace_between_markers(page, *MARKERS, table)
    draw_errors_of_every_run()


if __name__ == "__main__":
    run("results", main)
