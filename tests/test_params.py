"""params.yaml: what is read, and what is said of what cannot be."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml
from hypothesis import given
from hypothesis import strategies as st

from common.console import InputError
from common.params import read_params
from runs.recipe import RECIPES, read_recipe
from stages.load import LoadParams
from stages.train import TrainParams
from tests.helpers import COMMITTED, DEFAULTS, PARAMETERS_OF, ROOT, STAGES, commit, dvc, yaml


def test_dvc_yaml_declares_what_the_stages_read() -> None:
    stages = yaml.load(ROOT / "dvc.yaml")["stages"]
    assert set(stages) == set(STAGES)
    for name, model in PARAMETERS_OF.items():
        own = {key for key in stages[name]["params"] if isinstance(key, str)}
        assert own == set(model.model_fields)
    keys = {key for model in PARAMETERS_OF.values() for key in model.model_fields}
    assert set(COMMITTED) == set(DEFAULTS) == keys


# make new leaves this out
def test_the_defaults_are_the_committed_parameters() -> None:
    assert COMMITTED == DEFAULTS


# make new goes on here
NULL_IS_ALLOWED = {
    "classes",
    "train_images",
    "validation_images",
    "test_images",
    "patience",
    "threads",
}
WRONG = [
    ("data_seed", 2**32, "from 0 to 4294967295"),
    ("seed", -1, "from 0 to 4294967295"),
    ("seed", 2**32, "from 0 to 4294967295"),
    ("dataset", "", "path of a folder or zip archive"),
    ("classes", ["0"], "two or more different folder names"),
    ("classes", ["0", "0"], "two or more different folder names"),
    ("image_size", 0, "pixels from 1 to 1024"),
    ("train_images", 0, "whole number from 1, or null"),
    ("validation_images", 0, "whole number from 1, or null"),
    ("color_mode", "gray", "grayscale or rgb"),
    ("padding", "full", "valid or same"),
    ("head", "max", "flatten or average"),
    ("class_weight", "auto", "none or balanced"),
    ("keep", "first", "last or best"),
    ("patience", 0, "whole number from 1, or null"),
    ("flip", 1, "true or false"),
    ("brightness", 1.1, "from 0 to 1"),
    ("contrast", -0.1, "from 0 to 1"),
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
    ("threads", 0, "from 1 to 1024, or null"),
    ("evaluate_on", "train", "test or validation"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: object, allowed: str
) -> None:
    path = tmp_path / "params.yaml"
    yaml.dump(DEFAULTS | {key: value}, path)
    for model in PARAMETERS_OF.values():
        if key not in model.model_fields:
            read_params(model, path)
            continue
        with pytest.raises(InputError) as raised:
            read_params(model, path)
        message = str(raised.value)
        assert message.startswith(f"{path}: {key} is {value!r}; "), message
        assert allowed in message
        assert "\n" not in message


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_a_missing_or_null_key_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "params.yaml"
    for model in PARAMETERS_OF.values():
        if key in model.model_fields:
            yaml.dump({k: v for k, v in DEFAULTS.items() if k != key}, path)
            with pytest.raises(InputError, match=f"{key} is missing; it must be "):
                read_params(model, path)
            yaml.dump(DEFAULTS | {key: None}, path)
            if key not in NULL_IS_ALLOWED:
                with pytest.raises(InputError, match=f"{key} is None; it must be "):
                    read_params(model, path)


def changed_text(key: str, text: str) -> str:
    """Return a params.yaml with a value as a person might write it."""
    return re.sub(rf"(?m)^{key}:.*", f"{key}: {text}", (ROOT / "tests/params.yaml").read_text())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "010", 10),
        ("epochs", "0o17", 15),
        ("epochs", "1_000", 1000),
        ("epochs", "0x1F", 31),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", ".5", 0.5),
        ("seed", "052", 52),
        ("batch_norm", "TRUE", True),
        ("classes", "[yes, no, on, off, y, n]", ["yes", "no", "on", "off", "y", "n"]),
        ("classes", "[a, b]\r", ["a", "b"]),
    ],
)
def test_a_value_is_the_one_that_dvc_records(
    tmp_path: Path, key: str, text: str, value: object
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(changed_text(key, text), newline="")
    assert load_yaml(path)[key] == value
    for model in PARAMETERS_OF.values():
        if key in model.model_fields:
            assert getattr(read_params(model, path), key) == value


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epochs", "1:30", "epochs is '1:30'; it must be a whole number from 1 to 10000"),
        ("epochs", "0x" + "f" * 5000, "epochs is a number of thousands of digits; it must be a w"),
        ("batch_norm", "yes", "batch_norm is 'yes'; it must be true or false"),
        ("batch_norm", "on", "batch_norm is 'on'; it must be true or false"),
    ],
)
def test_what_yaml_1_2_reads_as_something_else_is_refused(
    tmp_path: Path, key: str, text: str, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(changed_text(key, text))
    (model,) = [model for model in PARAMETERS_OF.values() if key in model.model_fields]
    with pytest.raises(InputError, match=re.escape(f"{path}: {message}")):
        read_params(model, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 5\nepochs: 6", 'line 2: .* found duplicate key "epochs"'),
        ("epochs: [5", "line 1: .* expected "),
        ("epochs: 5\n---\nepochs: 6", "line 2: expected a single document"),
        ("epochs: !!python/name:os.system 5", "line 1: could not determine a constructor"),
        ("epochs: !!bool 5", "'5'"),
        ("epochs: " + "[" * 10_000, "maximum recursion depth"),
    ],
)
def test_what_is_not_yaml_is_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"^{path} is not YAML: {message}.*$") as raised:
        read_params(TrainParams, path)
    assert "\n" not in str(raised.value)


def test_a_key_that_no_stage_reads_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    yaml.dump(DEFAULTS | {"epoch": 10}, path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    line = "params.yaml: no stage reads 'epoch'; did you mean epochs? A parameter of your own is"
    for model in PARAMETERS_OF.values():
        with pytest.raises(InputError, match=re.escape(line)):
            read_params(model, path)
    # One's own is declared by a stage of one's own, or used in dvc.yaml.
    own = '  mine: {cmd: "exec python mine.py ${other}", params: [epoch]}\n'
    pipeline = (ROOT / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(pipeline.replace("\nplots:\n", f"{own}\nplots:\n"))
    yaml.dump(DEFAULTS | {"epoch": 10, "other": "x"}, path)
    read_params(LoadParams, path)
    whole = own.replace("[epoch]", "[params.yaml: ]")
    (tmp_path / "dvc.yaml").write_text(pipeline.replace("\nplots:\n", f"{whole}\nplots:\n"))
    yaml.dump(DEFAULTS | {"anything": 1}, path)
    read_params(LoadParams, path)


def test_classes_may_be_written_as_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    yaml.dump(DEFAULTS | {"classes": [3, 8]}, path)
    assert read_params(LoadParams, path).classes == ["3", "8"]


@pytest.mark.parametrize("name", ["null", "~", "true", "1e3", "007", "1.0", "0x1F", "1_000", "+7"])
def test_a_class_that_yaml_reads_as_no_text_is_to_be_put_in_quotes(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(changed_text("classes", f"[cat, {name}]"))
    with pytest.raises(InputError, match=re.escape(f"classes: {name} without quotes is read")):
        read_params(LoadParams, path)
    path.write_text(changed_text("classes", f'[cat, "{name}"]'))
    assert read_params(LoadParams, path).classes == ["cat", name]


IMAGES = "bücher, [1] ~ (2)=a"


def test_folders_are_found_by_any_name_given_to_dvc(repository: Path, dataset: Path) -> None:
    names = ["yes", "no", "on", "off", "y", "n", "true", "null", "~", "1e3", "007", "1.0"]
    for index, name in enumerate(names):
        for split in ("train", "test"):
            shutil.copytree(dataset / split / str(index % 10), repository / IMAGES / split / name)
    commit(repository, "images in folders of these names")
    classes = f"classes={json.dumps(names, separators=(',', ':'))}"
    images = f'dataset="{IMAGES}"'  # as docs/parameters.md says how to write any path
    dvc(repository, "exp", "run", "--set-param", images, "--set-param", classes, "load")
    params = repository / "params.yaml"
    assert read_params(LoadParams, params).classes == names
    text = re.sub("(?m)^data_seed:.*", "data_seed: 052", params.read_text())
    params.write_text(re.sub("(?m)^validation_images:.*", "validation_images: 010", text))
    dvc(repository, "repro", "load")
    recorded = yaml.load(repository / "dvc.lock")["stages"]["load"]["params"]["params.yaml"]
    assert recorded["classes"] == names
    assert recorded["data_seed"] == read_params(LoadParams, params).data_seed == 52
    counts = json.loads((repository / "metrics/load.json").read_text())
    assert recorded["validation_images"] == counts["validation_images"] == 10


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def dumped(values: dict) -> bytes:
    """Return YAML."""
    stream = io.BytesIO()
    yaml.dump(values, stream)
    return stream.getvalue()


@pytest.mark.slow
@given(
    st.one_of(
        st.binary(),
        st.dictionaries(st.sampled_from(sorted(DEFAULTS)), yaml_values).map(
            lambda changes: dumped(DEFAULTS | changes)
        ),
    )
)
def test_any_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    for model in PARAMETERS_OF.values():
        try:
            read_params(model, path)
        except InputError as error:
            assert str(error).startswith(str(path))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_parameters_that_exist_to_what_is_allowed(
    recipe: str, tmp_path: Path
) -> None:
    values = read_recipe(recipe)
    assert values.keys() <= COMMITTED.keys()
    path = tmp_path / "params.yaml"
    yaml.dump(COMMITTED | values, path)
    for model in PARAMETERS_OF.values():
        read_params(model, path)
