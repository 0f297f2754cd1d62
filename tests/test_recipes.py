"""Recipes: each can be run as it stands."""

from pathlib import Path

import pytest
import yaml

from recipes.run import FOLDER, RECIPES
from stages.params import read_params
from tests.test_params import COMMITTED, STAGES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_exist_to_what_is_allowed(
    recipe: str, tmp_path: Path
) -> None:
    values = yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text())
    assert all(COMMITTED[key] != value for key, value in values.items())
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(COMMITTED | values))
    for model in STAGES.values():
        read_params(model, path)
