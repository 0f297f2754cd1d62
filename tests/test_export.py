"""`make export`: the files that are made of a trained model, their check, and when it is done."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from common.console import InputError
from common.splits import read_split
from inference import exported, source
from inference.exported import Description, ExportedModel
from tests.helpers import ENVIRONMENT, ROOT, command, contents, dvc, git

MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed")
LITERT = ("models/model.tflite", "models/model_int8.tflite")


@pytest.fixture(scope="module")
def done(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the model of a copy of the repository; return where."""
    folder = tmp_path_factory.mktemp("export") / "repository"
    shutil.copytree(first_run, folder, symlinks=True)
    output = command(folder, *MAKE, "export")
    assert "compared with Keras on 100 test images" in output
    noise = [line for line in output.splitlines() if "W0000" in line or "arning" in line]
    assert not noise
    assert git(folder, "status", "--porcelain") == "", "using a model changes nothing in Git"
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Return all that is in models/, by name: what is half-written, too."""
    return contents(folder / "models")


def test_the_exported_model_says_what_evaluate_found(done: Path) -> None:
    test = read_split(done / "data/prepared/test")
    model = ExportedModel(done / "models/model.onnx")
    probabilities = model.probabilities_of(test.images[:])
    assert probabilities.dtype == np.float32
    with (done / "plots/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = [model.description.classes[label] for label in probabilities.argmax(axis=1)]
    assert classes == [row["predicted"] for row in rows]
    confidences = [float(row["confidence"]) for row in rows]
    np.testing.assert_allclose(probabilities.max(axis=1), confidences, atol=1e-5)
    numbers = json.loads((done / "models/export.json").read_text())
    assert numbers["images"] == 100
    for name in ("onnx", "litert"):
        assert numbers[f"{name}_changed_classes"] == 0
        assert 0 < numbers[f"{name}_largest_difference"] < 1e-5
    assert numbers["int8_bytes"] < numbers["litert_bytes"]
    assert numbers["int8_largest_difference"] > 1e-4  # it is quantised


def test_each_file_says_what_it_is(done: Path) -> None:
    trained = (done / "models/mnist_cnn_model.h5").read_bytes()
    expected = Description(
        classes=[str(digit) for digit in range(10)],
        image_size=28,
        color_mode="grayscale",
        model_md5=hashlib.md5(trained, usedforsecurity=False).hexdigest(),
        commit=git(done, "rev-parse", "HEAD").strip(),
        metrics=json.loads((done / "metrics/evaluate.json").read_text()),
    )
    assert ExportedModel(done / "models/model.onnx").description == expected
    for name in LITERT:
        with zipfile.ZipFile(done / name) as archive:
            content = archive.read("description.json")
        assert Description.model_validate_json(content) == expected


def test_it_is_used_as_long_as_the_model_is_the_same(done: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(done, tmp_path / "repository", symlinks=True)
    before = files(folder)
    for name in ("model.onnx", "model.tflite", "export.json"):
        (folder / "models" / name).unlink()
    command(folder, *MAKE, "export")
    assert files(folder) == before  # the same bytes, of another process
    dvc(folder, "exp", "run", "-S", "epochs=1")
    assert files(folder).keys() == before.keys()  # the pipeline at the root leaves them alone
    code = "from inference.exported import open_current; print(open_current().description.commit)"
    opened = command(folder, sys.executable, "-c", code)
    assert opened.startswith("exporting the model, which has changed\n")
    assert opened.endswith("\nNone\n")  # no commit names this model yet
    after = files(folder)
    assert after.keys() == before.keys()
    assert [n for n in before if n != "architecture.json" and before[n] == after[n]] == []
    assert command(folder, sys.executable, "-c", code) == "None\n"


def test_a_model_that_answers_otherwise_is_not_exported(done: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(done, tmp_path / "repository", symlinks=True)
    before = files(folder)
    path = folder / "inference/conversion.py"
    text = path.read_text()
    line = "    put_in_order(model.graph)\n"
    assert text.count(line) == 1
    plant = """
    for constant in model.graph.initializer:
        if list(constant.dims) == [32, 10]:  # the weights of the last layer
            weights = onnx.numpy_helper.to_array(constant).copy()
            weights[:, 7] += 1
            constant.CopyFrom(onnx.numpy_helper.from_array(weights, constant.name))
"""
    path.write_text(text.replace(line, line + plant))
    output = command(folder, *MAKE, "export", fails=True)
    assert "export: error: the onnx model differs from the trained one by" in output
    assert "Traceback" not in output
    assert files(folder) == before


@pytest.mark.slow
def test_rounding_is_told_from_a_difference() -> None:
    from inference.export import Comparison

    labels = np.zeros(1000, int)
    expected = np.tile(np.float32([0.6, 0.4]), (1000, 1))

    def comparison(*rows: tuple[float, float]) -> Comparison:
        probabilities = expected.copy()
        probabilities[: len(rows)] = rows
        return Comparison("int8", probabilities, expected)

    comparison((0.60005, 0.39995)).check_equal()
    for row in ((0.61, 0.39), (np.nan, np.nan)):
        with pytest.raises(InputError, match="differs from the trained one"):
            comparison(row).check_equal()
    expected[0] = 0.50001, 0.49999  # rounding decides
    comparison((0.49999, 0.50001)).check_equal()
    expected[0] = 0.50006, 0.49994  # and here it does not
    with pytest.raises(InputError, match="1 of the test images another class"):
        comparison((0.49997, 0.50003)).check_equal()
    # 10 images may be lost, and two standard deviations: the root of 18 is 4.2, of 25 is 5.
    assert comparison(*[(0.1, 0.9)] * 18).loss_of_accuracy(labels, labels) == ""
    loss = comparison(*[(0.1, 0.9)] * 25).loss_of_accuracy(labels, labels)
    assert "gets 25 more of 1,000 test images wrong" in loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "mixed_bfloat16", "batch_norm": True, "conv_filters": [[4, 4], 8]},
        {"color_mode": "rgb", "image_size": 20, "head": "average", "padding": "same"},
        {"conv_filters": [], "dense_units": [], "dropout": 0.5},
    ],
)
def test_every_kind_of_network_is_exported(changes: dict[str, object], tmp_path: Path) -> None:
    from common.backend import keras
    from common.params import CHANNELS, read_params
    from inference.conversion import in_float32, to_litert, to_onnx
    from inference.litert import LiteRTModel, read_description
    from stages.define import DefineParams, build_network

    params = read_params(DefineParams, ROOT / "params.yaml").model_copy(update=changes)
    keras.utils.set_random_seed(0)
    trained = build_network(params, classes=3)
    random = np.random.default_rng(0)
    for weight in trained.weights:  # as if it were trained: batch normalisation does something
        weight.assign(weight + 0.2 * random.random(weight.shape, np.float32))
    network = in_float32(trained)
    shape = (params.image_size, params.image_size, CHANNELS[params.color_mode])
    images = random.integers(0, 256, (40, *shape), np.uint8)
    expected = network.predict(images / np.float32(255), verbose=0)
    as_trained = trained.predict(images / np.float32(255), verbose=0)
    assert abs(expected - as_trained).max() < 0.05  # 8 bits of precision
    description = Description(
        classes=["a", "b", "ç"],
        image_size=params.image_size,
        color_mode=params.color_mode,
        model_md5="0" * 32,
        commit=None,
        metrics={},
    )
    content = to_onnx(network, description)
    assert to_onnx(network, description) == content
    path = tmp_path / "model"
    path.write_bytes(content)
    model = ExportedModel(path)
    assert model.description == description
    np.testing.assert_allclose(model.probabilities_of(images), expected, atol=1e-5)
    for calibration, tolerance in ((None, 1e-5), (images, 0.1)):
        content = to_litert(network, description, calibration)
        assert to_litert(network, description, calibration) == content
        path.write_bytes(content)
        assert read_description(path) == description
        found = LiteRTModel(path).probabilities_of(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_without_a_trained_model_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for main in (source.main, exported.open_current):
        with pytest.raises(InputError, match="`make repro` trains one"):
            main()
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mnist_cnn_model.h5").write_bytes(b"another")
    with pytest.raises(InputError, match=r"names no evaluation of .* `make repro` evaluates it"):
        source.main()


def test_an_export_that_cannot_be_made_is_one_line_more(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mnist_cnn_model.h5").write_bytes(b"no network")
    code = (
        "from common.console import run; from inference.exported import open_current; "
        "run('predict', open_current)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "exporting the model, which is not exported yet"
    assert lines[1].startswith("export: error: dvc.lock names no evaluation of")
    assert lines[2:] == ["predict: error: the model could not be exported; the reason stands above"]
