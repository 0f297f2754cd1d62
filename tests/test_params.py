"""params.yaml: what is read, and what is said of what cannot be."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.console import InputError
from stages.define import DefineParams
from stages.evaluate import EvaluateParams
from stages.load import LoadParams
from stages.params import read_params
from stages.train import TrainParams
from tests.conftest import ROOT

STAGES = {
    "load": LoadParams,
    "define": DefineParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
}
COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text())


def test_dvc_yaml_declares_what_the_stages_read() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages) == set(STAGES)
    for name, model in STAGES.items():
        assert set(stages[name]["params"]) == set(model.model_fields)
    assert set(COMMITTED) == {key for model in STAGES.values() for key in model.model_fields}


WRONG = [
    ("seed", -1, "from 0 to 4294967295"),
    ("seed", 2**32, "from 0 to 4294967295"),
    ("dataset", "", "path of a folder or zip archive"),
    ("classes", ["0"], "two or more different folder names"),
    ("classes", ["0", "0"], "two or more different folder names"),
    ("image_size", 0, "pixels from 1 to 1024"),
    ("train_images", 0, "whole number from 1, or null"),
    ("validation_images", None, "whole number from 1"),
    ("test_images", "many", "whole number from 1, or null"),
    ("conv_filters", [32, 0], "whole numbers from 1 to 4096"),
    ("conv_filters", [8, 8, 8, 8], "at most 3"),
    ("conv_filters", [8, [8] * 6], "shorter lists"),
    ("conv_filters", [[8, []]], "or lists of them"),
    ("conv_filters", [[]], "or lists of them"),
    ("kernel_size", 16, "from 1 to 15"),
    ("dense_units", 128, "a list of"),
    ("dropout", 1.0, "from 0 to below 1"),
    ("batch_norm", "yes", "true or false"),
    ("epochs", True, "whole number from 1"),
    ("epochs", 2.5, "whole number from 1"),
    ("batch_size", 0, "from 1 to 65536"),
    ("optimizer", "lion", "adam, rmsprop or sgd"),
    ("learning_rate", float("nan"), "above 0"),
    ("learning_rate", "fast", "above 0"),
    ("schedule", "cosine", "constant or one_cycle"),
    ("precision", "float16", "float32 or mixed_bfloat16"),
    ("label_smoothing", 1, "from 0 to below 1"),
    ("weight_decay", -0.1, "from 0 to 1"),
    ("ema", 1.0, "from 0 to below 1"),
    ("rotation", 181, "degrees from 0 to 180"),
    ("shift", [1, 1], "pixels from 0 to 1024"),
    ("scale", 1, "from 0 to below 1"),
    ("shear", 90, "degrees from 0 to 60"),
    ("elastic", float("inf"), "pixels from 0 to 1024"),
    ("bad_images", "ignore", "error or skip"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: object, allowed: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(COMMITTED | {key: value}))
    for model in STAGES.values():
        if key not in model.model_fields:
            read_params(model, path)
            continue
        with pytest.raises(InputError) as raised:
            read_params(model, path)
        message = str(raised.value)
        assert message.startswith(f"{path}: {key} is {value!r}; "), message
        assert allowed in message
        assert "\n" not in message


@pytest.mark.parametrize("key", sorted(COMMITTED))
def test_a_missing_or_null_key_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "params.yaml"
    for model in STAGES.values():
        if key in model.model_fields:
            path.write_text(yaml.safe_dump({k: v for k, v in COMMITTED.items() if k != key}))
            with pytest.raises(InputError, match=f"{key} is missing; it must be "):
                read_params(model, path)
            path.write_text(yaml.safe_dump(COMMITTED | {key: None}))
            if key not in ("train_images", "test_images"):
                with pytest.raises(InputError, match=f"{key} is None; it must be "):
                    read_params(model, path)


def test_numbers_are_those_that_dvc_reads(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        yaml.safe_dump(COMMITTED).replace("learning_rate: 0.001", "learning_rate: 1e-3")
    )
    assert read_params(TrainParams, path).learning_rate == 0.001


def test_classes_may_be_written_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(COMMITTED | {"classes": [3, 8]}))
    assert read_params(LoadParams, path).classes == ["3", "8"]


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.one_of(
        st.binary(),
        st.dictionaries(st.sampled_from(sorted(COMMITTED)), yaml_values).map(
            lambda changes: yaml.safe_dump(COMMITTED | changes).encode()
        ),
    )
)
def test_any_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    for model in STAGES.values():
        try:
            read_params(model, path)
        except InputError as error:
            assert str(error).startswith(str(path))
