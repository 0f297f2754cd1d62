"""The results of the recipes: the pages show what results.csv holds."""

import json
from pathlib import Path

import pandas as pd
import pytest

from runs.recipe import RECIPES, experiment_command
from runs.recipe_table import recipe_table
from runs.results import (
    ERRORS,
    MARKERS,
    PAGES,
    PICTURED,
    RESULTS,
    SEEDS,
    errors_of_every_run,
    is_done,
    read_rows,
)
from tests.helpers import ROOT, command, commit


def test_a_change_comes_after_the_value_of_the_recipe() -> None:
    words = experiment_command("fast", 43, "name", "precision=float32", "epochs=3")
    assert words.index("-Sprecision=float32") > words.index('-Sprecision="mixed_bfloat16"')
    assert words.index("-Sepochs=3") > words.index("-Sepochs=2")


def test_the_pages_show_five_runs_of_each_recipe_as_it_is() -> None:
    results = read_rows(RESULTS)
    assert len(results) == len(RECIPES) * len(SEEDS)
    assert all(is_done(results, recipe, seed) for recipe in RECIPES for seed in SEEDS)
    for page in PAGES:
        assert f"{MARKERS[0]}{recipe_table(results)}{MARKERS[1]}" in (ROOT / page).read_text()
    accuracy = 1 - results["errors"] / results["test_images"]
    assert results["test_accuracy"].to_numpy() == pytest.approx(accuracy.to_numpy())
    wrong = read_rows(ERRORS).groupby("seed").size()
    pictured = results[results["recipe"] == PICTURED].set_index("seed")["errors"]
    assert wrong.to_dict() == pictured.to_dict()


def runs_of(recipe: str, accuracies: list[float], seconds: float, **settings: object) -> list:
    """Return rows of results.csv."""
    return [
        (
            recipe,
            seed,
            1234,
            seconds,
            1000,
            round(1000 * (1 - accuracy)),
            accuracy,
            json.dumps(settings),
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def test_neighbours_on_the_same_data_set_are_compared() -> None:
    rows = [
        *runs_of("slow", [0.90, 0.91, 0.92], 60),
        *runs_of("clothes", [0.93, 0.94], 10, dataset="clothes.zip"),
        *runs_of("quick", [0.91, 0.93, 0.92], 12),
        *runs_of("best", [0.99, 0.99, 0.99], 120),
    ]
    sentences = recipe_table(pd.DataFrame(rows, columns=read_rows(RESULTS).columns)).split("\n\n")[
        1
    ]
    assert sentences == (
        "- `quick` against `slow`: +1.00 points, p = 0.288, not distinguishable from noise; "
        "5.0 times as fast.\n"
        "- `best` against `quick`: +7.00 points, p = 0.007, more accurate; "
        "takes 10 times as long.\n"
    )


def test_one_run_and_equal_runs_have_no_interval() -> None:
    rows = [*runs_of("one", [0.9], 5), *runs_of("equal", [0.95, 0.95], 5)]
    table = recipe_table(pd.DataFrame(rows, columns=read_rows(RESULTS).columns))
    assert "| 90.000% | - |" in table and "| 95.000% ± 0.000 | - |" in table
    assert (
        "`equal` against `one`: +5.00 points, no test can tell it from noise; takes as long."
        in table
    )


def test_common_mistakes_are_those_of_every_run() -> None:
    rows = [
        (seed, "test/3/7.jpg", "3", "5" if seed < 45 else "8", 0.1 * (seed - 41)) for seed in SEEDS
    ]
    rows += [(seed, "test/9/1.jpg", "9", "4", 1.0) for seed in list(SEEDS)[1:]]
    errors = pd.DataFrame(rows, columns=["seed", "image", "actual", "predicted", "confidence"])
    found = errors_of_every_run(errors)
    assert found.index.tolist() == ["test/3/7.jpg"]
    assert found.loc["test/3/7.jpg", ["actual", "predicted"]].tolist() == ["3", "5"]
    assert found.loc["test/3/7.jpg", "confidence"] == pytest.approx(0.3)


def test_only_the_run_that_is_missing_is_made(committed: Path, dataset: Path) -> None:
    recipes = committed / "recipes"
    for path in recipes.glob("*.yaml"):
        path.unlink()
    (recipes / "accurate.yaml").write_text("epochs: 1\n")
    images = [str(path.relative_to(dataset)) for path in dataset.glob("test/*/*.jpg")]
    number = len(images)
    done = ["accurate", 0, 1, 1.0, number, number, 0.0, '{"epochs": 1}']
    pd.DataFrame([done], columns=read_rows(RESULTS).columns).to_csv(
        recipes / RESULTS.name, index=False
    )
    wrong = [(0, image, image.split("/")[1], "0", 0.5) for image in images]
    pd.DataFrame(wrong, columns=read_rows(ERRORS).columns).to_csv(
        recipes / ERRORS.name, index=False
    )
    commit(committed, "a recipe of one epoch, of which one run is done")
    code = "from runs import results; results.SEEDS = range(2); results.main()"
    params = committed / "params.yaml"
    small = params.read_text()
    params.write_text(small.replace("epochs: 2", "epochs: 3"))
    output = command(committed, "python", "-c", code, fails=True)
    assert "the working tree differs from HEAD in params.yaml; commit or undo that" in output
    params.write_text(small)
    output = command(committed, "python", "-c", code)
    assert "results: accurate, seed 1\n" in output and "results: accurate, seed 0\n" not in output
    results = read_rows(recipes / "results.csv")
    assert results["seed"].tolist() == [0, 1]
    assert (results["train_seconds"] > 0).all()
    errors = read_rows(recipes / "errors.csv").groupby("seed").size()
    assert errors.tolist() == results["errors"].tolist()
    assert recipe_table(results) in (committed / "README.md").read_text()
    written = {path: path.read_bytes() for path in recipes.glob("*.[cp]*")}
    assert recipes / "errors.png" in written
    assert "results: " not in command(committed, "python", "-c", code)  # nothing is run
    assert {path: path.read_bytes() for path in written} == written


def test_the_headline_is_that_of_the_recipes() -> None:
    results = pd.read_csv(ROOT / "recipes/results.csv")
    for recipe in ("notebook", "fast", "accurate"):
        mean = results.loc[results["recipe"] == recipe, "test_accuracy"].mean()
        assert f"**{mean:.1%}**" in (ROOT / "README.md").read_text(), recipe
