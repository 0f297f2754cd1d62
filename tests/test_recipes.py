"""Recipes: each can be run as it stands; the pages show what results.csv holds."""

from pathlib import Path

import pandas as pd
import pytest

from recipes import run
from recipes.results import (
    ERRORS,
    MARKERS,
    PAGES,
    PICTURED,
    RESULTS,
    SEEDS,
    common,
    is_done,
    read,
    table,
)
from recipes.run import RECIPES, read_recipe
from stages.params import read_params
from tests.conftest import ROOT, command, commit, dvc, yaml
from tests.test_params import COMMITTED, STAGES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_exist_to_what_is_allowed(
    recipe: str, tmp_path: Path
) -> None:
    values = read_recipe(recipe)
    assert values.keys() <= COMMITTED.keys()
    path = tmp_path / "params.yaml"
    yaml.dump(COMMITTED | values, path)
    for model in STAGES.values():
        read_params(model, path)


def test_a_change_comes_after_the_value_of_the_recipe() -> None:
    words = run.command("fast", 43, "name", "precision=float32", "epochs=3")
    assert words.index("-Sprecision=float32") > words.index('-Sprecision="mixed_bfloat16"')
    assert words.index("-Sepochs=3") > words.index("-Sepochs=2")


def test_the_pages_show_five_runs_of_each_recipe_as_it_is() -> None:
    results = read(RESULTS)
    assert len(results) == len(RECIPES) * len(SEEDS)
    assert all(is_done(results, recipe, seed) for recipe in RECIPES for seed in SEEDS)
    for page in PAGES:
        assert f"{MARKERS[0]}{table(results)}{MARKERS[1]}" in (ROOT / page).read_text()
    accuracy = 1 - results["errors"] / results["test_images"]
    assert results["test_accuracy"].to_numpy() == pytest.approx(accuracy.to_numpy())
    wrong = read(ERRORS).groupby("seed").size()
    pictured = results[results["recipe"] == PICTURED].set_index("seed")["errors"]
    assert wrong.to_dict() == pictured.to_dict()


def test_common_mistakes_are_those_of_every_run() -> None:
    rows = [
        (seed, "test/3/7.jpg", "3", "5" if seed < 45 else "8", 0.1 * (seed - 41)) for seed in SEEDS
    ]
    rows += [(seed, "test/9/1.jpg", "9", "4", 1.0) for seed in list(SEEDS)[1:]]
    errors = pd.DataFrame(rows, columns=["seed", "image", "actual", "predicted", "confidence"])
    found = common(errors)
    assert found.index.tolist() == ["test/3/7.jpg"]
    assert found.loc["test/3/7.jpg", ["actual", "predicted"]].tolist() == ["3", "5"]
    assert found.loc["test/3/7.jpg", "confidence"] == pytest.approx(0.3)


def test_only_the_run_that_is_missing_is_made(repository: Path, dataset: Path) -> None:
    recipes = repository / "recipes"
    for path in recipes.glob("*.yaml"):
        path.unlink()
    (recipes / "accurate.yaml").write_text("epochs: 1\n")
    images = [str(path.relative_to(dataset)) for path in dataset.glob("test/*/*.jpg")]
    number = len(images)
    done = ["accurate", 0, 1, 1.0, number, number, 0.0, '{"epochs": 1}']
    pd.DataFrame([done], columns=read(RESULTS).columns).to_csv(recipes / RESULTS.name, index=False)
    wrong = [(0, image, image.split("/")[1], "0", 0.5) for image in images]
    pd.DataFrame(wrong, columns=read(ERRORS).columns).to_csv(recipes / ERRORS.name, index=False)
    dvc(repository, "repro")
    commit(repository, "a recipe of one epoch, of which one run is done")
    code = "from recipes import results; results.SEEDS = range(2); results.main()"
    params = repository / "params.yaml"
    committed = params.read_text()
    params.write_text(committed.replace("epochs: 2", "epochs: 3"))
    output = command(repository, "python", "-c", code, fails=True)
    assert "the working tree differs from HEAD in params.yaml; commit or undo it" in output
    params.write_text(committed)
    output = command(repository, "python", "-c", code)
    assert "results: accurate, seed 1\n" in output and "results: accurate, seed 0\n" not in output
    results = read(recipes / "results.csv")
    assert results["seed"].tolist() == [0, 1]
    assert (results["train_seconds"] > 0).all()
    errors = read(recipes / "errors.csv").groupby("seed").size()
    assert errors.tolist() == results["errors"].tolist()
    assert table(results) in (repository / "README.md").read_text()
    written = {path: path.read_bytes() for path in recipes.glob("*.[cp]*")}
    assert recipes / "errors.png" in written
    assert command(repository, "python", "-c", code) == ""
    assert {path: path.read_bytes() for path in written} == written
