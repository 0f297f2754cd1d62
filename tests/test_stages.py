"""`define`, `train` and `evaluate`, in one process: they share the import of TensorFlow."""

import json
import os
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from common import checkpoint, layers
from common.backend import keras, tf, use_threads, without_greetings
from common.console import InputError
from common.fast_layers import FastConv2D
from common.fused_adam import FusedAdam
from common.model_files import read_architecture
from common.params import read_params
from common.splits import Split, read_split
from common.training_loop import balanced_weights, is_stuck, make_steps, run_epoch
from common.training_network import fastest_kind, finished_model, training_network
from stages import define, evaluate, load, train
from tests.helpers import COMMITTED, ROOT, contents, write_params

use_threads(COMMITTED["threads"])  # before a test computes anything: later it cannot be set


def test_default_architecture_is_that_of_the_notebook() -> None:
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    model = define.build_network(params, classes=10)
    notebook = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.Conv2D(64, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    assert model.count_params() == notebook.count_params() == 225_034
    notebook.set_weights(model.get_weights())
    images = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    np.testing.assert_array_equal(model(images), notebook(images))
    # by hand: 26*26*9*32 + 11*11*9*32*64 + 1600*128 + 128*10
    assert define.multiply_adds(model) == 194_688 + 2_230_272 + 204_800 + 1_280


def test_every_parameter_of_the_architecture_shapes_it() -> None:
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    model = define.build_network(
        params.model_copy(
            update={
                "image_size": 20,
                "conv_filters": [4],
                "kernel_size": 5,
                "dense_units": [],
                "dropout": 0.5,
                "batch_norm": True,
            }
        ),
        classes=3,
    )
    assert [layer.name for layer in model.layers] == [
        "conv_1",
        "pool_1",
        "batch_norm_1",
        "relu_1",
        "flatten",
        "dropout_1",
        "probabilities",
    ]
    assert model.input_shape == (None, 20, 20, 1)
    assert model.output_shape == (None, 3)
    assert model.layers[0].kernel.shape == (5, 5, 1, 4)
    assert model.get_layer("dropout_1").rate == 0.5


def test_a_list_of_filters_is_convolutions_before_one_pooling() -> None:
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    params = params.model_copy(update={"conv_filters": [[4, 8], 2]})
    model = define.build_network(params, classes=10)
    names = ["conv_1", "conv_2", "pool_1", "conv_3", "pool_2", "flatten"]
    assert [layer.name for layer in model.layers][:6] == names
    assert model.get_layer("pool_2").output.shape == (None, 5, 5, 2)  # 28, 26, 24, 12, 10, 5


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, [26, 12]),  # then 10, of which pooling makes 5
        ({"image_size": 27, "conv_filters": [[4, 8], 2]}, [24, 22, 10]),
        ({"conv_filters": [4, 8], "batch_norm": True}, [28, 12]),  # it looks at all pixels
        ({"conv_filters": [4, 8, 2], "padding": "same", "head": "average"}, [28, 14, 7]),
    ],
)
def test_the_network_that_is_trained_has_the_gradients_of_the_one_described(
    changes: dict[str, object], sizes: list[int]
) -> None:
    """Each convolution of it sees as many rows as `sizes` says, worked out by hand."""
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    params = params.model_copy(update=changes)
    described = define.build_network(params, classes=10)
    rng = np.random.default_rng(0)
    described.set_weights([rng.normal(0.05, 0.1, w.shape) for w in described.get_weights()])
    trained = training_network(described)
    images = rng.random((6, params.image_size, params.image_size, 1), np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(10, size=6)]
    gradients = []
    for network in (described, trained):
        with tf.GradientTape() as tape:
            losses = keras.losses.categorical_crossentropy(labels, network(images, training=True))
        gradients.append(tape.gradient(losses, network.trainable_variables))
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for expected, found in zip(described.weights, trained.weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # averages move, too
    convolutions = [layer for layer in trained.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.input.shape[1] for layer in convolutions] == sizes


def test_the_convolution_of_few_pixels_has_the_gradients_of_keras() -> None:
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(7, 8, 6, 3)).astype(np.float32))
    plain, fast = (kind(5, (4, 3), activation="relu") for kind in (layers.Conv2D, FastConv2D))
    for layer in (plain, fast):
        layer.build(images.shape)
    fast.set_weights(plain.get_weights())
    gradients = []
    for layer in (plain, fast):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images) ** 2)
        gradients.append(tape.gradient(loss, [images, *layer.trainable_variables]))
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"precision": "mixed_bfloat16"}, ["Conv2D", "Conv2D", "FastConv2D"]),  # 26, 11, 3 pixels
        ({}, ["Conv2D"] * 3),  # oneDNN's own way is as quick in 32 bits
        ({"precision": "mixed_bfloat16", "padding": "same"}, ["Conv2D"] * 3),
    ],
)
def test_convolutions_of_few_pixels_are_fast_ones(
    changes: dict[str, object], kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    params = params.model_copy(update={"conv_filters": [4, 8, 4]} | changes)
    network = training_network(define.build_network(params, classes=10))
    convolutions = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)]
    assert [type(layer).__name__ for layer in convolutions] == kinds


def test_layers_that_the_fast_ones_cannot_stand_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    image = keras.Input((6, 6, 2))
    normalize = layers.BatchNormalization

    def kind(layer: keras.layers.Layer, inputs: keras.KerasTensor = image) -> str:
        layer(inputs)
        return fastest_kind(layer).__name__

    assert kind(normalize()) == "FastBatchNormalization"
    assert kind(normalize(), keras.Input((5,))) == "BatchNormalization"
    for options in ({"scale": False}, {"center": False}, {"trainable": False}, {"axis": 1}):
        assert kind(normalize(**options)) == "BatchNormalization"
    assert kind(layers.Conv2D(3, 2, dtype="mixed_bfloat16")) == "FastConv2D"
    for options in ({"strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"padding": "same"}):
        assert kind(layers.Conv2D(2, 2, dtype="mixed_bfloat16", **options)) == "Conv2D"
    several = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: several)
    assert kind(normalize()) == "BatchNormalization"


def test_the_fused_adam_is_that_of_keras() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 10)
    rng = np.random.default_rng(0)
    start, *gradients = rng.normal(size=(6, 40, 3)).astype(np.float32)
    found = []
    for optimizer_class in (FusedAdam, keras.optimizers.Adam):
        optimizer = optimizer_class(schedule, weight_decay=0.1, use_ema=True, ema_momentum=0.9)
        weights = keras.Variable(start)
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [weights])
        found.append([weights.numpy(), *(variable.numpy() for variable in optimizer.variables)])
    assert np.abs(found[0][0] - start).max() > 0.01
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Run the four stages once, on the small data set; return where."""
    folder = tmp_path_factory.mktemp("done")
    write_params(folder, dataset=str(dataset), epochs=3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for stage in (load, define, train, evaluate):
            stage.main()
    return folder


def test_the_model_is_used_as_in_the_notebook(done: Path) -> None:
    model = keras.models.load_model(done / "models/mnist_cnn_model.h5")
    test = read_split(done / "data/prepared/test")
    x_test, y_test = test.images[:] / 255, np.eye(10)[test.labels]
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    predictions = model.predict(x_test, verbose=0)
    metrics = json.loads((done / "metrics/evaluate.json").read_text())
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    assert accuracy == pytest.approx(metrics["test_accuracy"])
    assert loss == pytest.approx(metrics["test_loss"], rel=1e-4)
    assert metrics["test_accuracy"] > 0.5  # it learned: chance is 0.1
    # It can be trained further, by Keras alone.
    assert type(model.optimizer) is keras.optimizers.Adam
    params = read_params(train.TrainParams, done / "params.yaml")
    steps = -(-len(read_split(done / "data/prepared/train")) // params.batch_size)
    assert model.optimizer.iterations == 3 * steps
    assert all(variable.numpy().any() for variable in model.optimizer.variables)


def test_metrics_are_those_of_the_predictions(done: Path) -> None:
    metrics = json.loads((done / "metrics/evaluate.json").read_text())
    table = pd.read_csv(done / "plots/predictions.csv", dtype={"actual": str, "predicted": str})
    test = read_split(done / "data/prepared/test")
    assert table["image"].tolist() == test.names.tolist()
    assert table["actual"].tolist() == test.labels.astype(str).tolist()
    assert metrics["test_accuracy"] == accuracy_score(table["actual"], table["predicted"])
    assert metrics["errors"] == (table["actual"] != table["predicted"]).sum()
    assert metrics["macro_f1"] == pytest.approx(
        f1_score(table["actual"], table["predicted"], average="macro")
    )
    assert metrics["test_accuracy_low"] < metrics["test_accuracy"] < metrics["test_accuracy_high"]
    calibration = pd.read_csv(done / "plots/calibration.csv")
    assert calibration["images"].sum() == len(test)
    per_class = pd.read_csv(done / "plots/per_class.csv")
    assert per_class["images"].tolist() == np.bincount(test.labels, minlength=10).tolist()


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.96, 0.04]], np.float32)
    labels = np.array([0, 1, 0, 0])
    split = Split(np.zeros((4, 1, 1, 1)), labels, np.array(list("abcd")))
    predictions = evaluate.predictions_of(probabilities, split, ["x", "y"], "test")
    calibration = evaluate.calibration_of(predictions)
    f1 = np.array([0.5, np.nan])
    metrics = evaluate.metrics_of(probabilities, labels, f1, calibration, "test")
    assert metrics["test_loss"] == pytest.approx(log_loss(labels, probabilities.astype(float)))
    # four bins of one image: |0.7-1|, |0.9-1|, |0.8-0|, |0.96-1|
    assert metrics["expected_calibration_error"] == pytest.approx((0.3 + 0.1 + 0.8 + 0.04) / 4)
    # Wilson for 3 of 4, z = 1.959964: (0.75 + z²/8 ± z sqrt(0.75*0.25/4 + z²/64)) / (1 + z²/4)
    assert metrics["test_accuracy_low"] == pytest.approx(0.300642, abs=1e-6)
    assert metrics["test_accuracy_high"] == pytest.approx(0.954413, abs=1e-6)
    assert metrics["errors"] == 1
    assert metrics["macro_f1"] == 0.5


def test_training_curves_and_metrics_agree(done: Path) -> None:
    curves = pd.read_csv(done / "plots/training.csv")
    assert curves["epoch"].tolist() == [1, 2, 3]
    assert curves["train_loss"].is_monotonic_decreasing
    metrics = json.loads((done / "metrics/train.json").read_text())
    for name, value in metrics.items():
        assert curves[name].iloc[-1] == pytest.approx(value, abs=1e-6)
    validation = read_split(done / "data/prepared/validation")
    model = keras.models.load_model(done / "models/mnist_cnn_model.h5")
    found = model.evaluate(validation.images[:] / 255, np.eye(10)[validation.labels], verbose=0)
    assert found == pytest.approx(
        [metrics["validation_loss"], metrics["validation_accuracy"]], rel=1e-4
    )


def test_training_is_that_of_keras_fit(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch of the stage ends with the weights that `fit` gives for the same batches."""
    monkeypatch.chdir(done)
    # Adam would make much of the last bits of small gradients, in which processors differ.
    changes = {"optimizer": "sgd", "learning_rate": 0.05}
    params = read_params(train.TrainParams).model_copy(update=changes)
    split = read_split(Path("data/prepared/train"))
    order = np.random.default_rng(0).permutation(len(split))
    ours = train.compiled_model(params, split)
    theirs = finished_model(read_architecture(train.ARCHITECTURE), ours)
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.15)
    theirs.compile(theirs.optimizer, smoothed, metrics=["accuracy"], jit_compile=False)
    steps = make_steps(ours, params.batch_size, training=True, label_smoothing=0.15)
    logs = run_epoch(ours, steps, split, order, params.batch_size, "epoch")
    history = theirs.fit(
        split.images[order].astype(np.float32) / 255.0,
        np.eye(10)[split.labels[order]],
        batch_size=params.batch_size,
        shuffle=False,
        verbose=0,
    ).history
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        # The two round differently, so that now and then another of two pixels is the largest.
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert logs == pytest.approx({name: values[0] for name, values in history.items()}, rel=1e-4)


def test_one_cycle_rises_and_falls(done: Path) -> None:
    params = read_params(train.TrainParams, done / "params.yaml")
    params = params.model_copy(
        update={"schedule": "one_cycle", "learning_rate": 0.5, "epochs": 5, "batch_size": 10}
    )
    schedule = train.learning_rate(params, 200)  # 100 steps
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == rates[30] == pytest.approx(0.5)
    assert rates[15] == pytest.approx((rates[0] + 0.5) / 2)
    assert rates[65] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_model_of_any_settings_is_used_as_in_the_notebook(
    spoilt: Path,
    dataset: Path,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_params(spoilt, dataset=str(dataset), schedule="one_cycle", precision=precision, epochs=1)
    define.main()
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda _: False)
    train.main()
    warned = "warning: precision is mixed_bfloat16" in capsys.readouterr().out
    assert warned == (precision == "mixed_bfloat16")
    model = keras.models.load_model(MODEL)
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda _: True)
    train.warn_of_slow_precision(model)
    assert capsys.readouterr().out == ""
    probabilities = model.predict(np.zeros((3, 28, 28, 1)), verbose=0)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(model.evaluate(np.zeros((3, 28, 28, 1)), np.eye(10)[:3], verbose=0)) == 2


@pytest.mark.slow
def test_training_with_fast_layers_is_that_with_those_of_keras(
    spoilt: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 16 bits, with a last batch of 8 images in place of 16."""
    changes = {"conv_filters": [4, 8, 4], "batch_norm": True, "precision": "mixed_bfloat16"}
    write_params(spoilt, dataset=str(dataset), **changes)
    define.main()
    losses = []
    for kind_of in (fastest_kind, type):
        monkeypatch.setattr("common.training_network.fastest_kind", kind_of)
        train.main()
        rows = pd.read_csv(spoilt / "plots/training.csv")
        losses.append(rows[["train_loss", "validation_loss"]].to_numpy())
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert (losses[0] != losses[1]).any()  # they are other layers


@pytest.mark.parametrize(
    ("file", "message"),
    [("images", "holds 9 images, 100 labels"), ("labels", "holds float64")],
)
def test_prepared_arrays_that_do_not_fit_are_refused(
    done: Path, tmp_path: Path, file: str, message: str
) -> None:
    for path in (done / "data/prepared/test").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    array = np.load(tmp_path / f"{file}.npy")
    np.save(tmp_path / f"{file}.npy", array[:9] if file == "images" else array.astype(float))
    with pytest.raises(InputError, match=message):
        read_split(tmp_path)


ARCHITECTURE = "models/architecture.json"
MODEL = "models/mnist_cnn_model.h5"


@pytest.fixture
def spoilt(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the finished run, to be spoiled; enter it."""
    folder = shutil.copytree(done, tmp_path / "spoilt")
    monkeypatch.chdir(folder)
    return folder


def refused(stage: ModuleType, message: str) -> None:
    """Check that a stage refuses its input and leaves all files as they were."""
    before = contents(Path())
    with pytest.raises(InputError, match=message):
        stage.main()
    assert contents(Path()) == before


def lambda_layer() -> dict:
    """Return the description of a layer that runs code when it is built."""
    layer = keras.layers.Lambda(lambda x: x)
    return keras.saving.serialize_keras_object(layer)


FOREIGN = {
    "Lambda": lambda_layer,
    "system": lambda: {"module": "os", "class_name": "system", "config": {"command": "touch gone"}},
    "Dense": lambda: {"module": "elsewhere", "class_name": "Dense", "config": {}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_architecture_with_a_foreign_class_is_refused(spoilt: Path, name: str) -> None:
    description = json.loads(Path(ARCHITECTURE).read_text())
    description["config"]["layers"].insert(1, FOREIGN[name]())
    Path(ARCHITECTURE).write_text(json.dumps(description))
    refused(train, f"{ARCHITECTURE} names .*'{name}', which `define` does not write: refused")
    assert not Path("gone").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"units": 10', '"units": 9', "gives 9 classes, data/prepared holds label 9"),
        ('"units": 10', '"units": -1', "is not a network that can be read"),
        ('"relu"', '"nonsense"', "is not a network that can be read"),
        ("28", "27", "is not a network that can be read"),
        ("Sequential", "Functional", "no Sequential network"),
        ("{", "", "is not a network that can be read"),
    ],
)
def test_an_edited_architecture_is_refused(spoilt: Path, old: str, new: str, message: str) -> None:
    text = Path(ARCHITECTURE).read_text()
    assert old in text
    Path(ARCHITECTURE).write_text(text.replace(old, new))
    refused(train, message)


def test_an_architecture_for_other_images_is_refused(spoilt: Path, dataset: Path) -> None:
    write_params(spoilt, dataset=str(dataset), image_size=20)
    define.main()
    refused(train, r"takes images of shape \(None, 20, 20, 1\), data/prepared holds \(None, 28")


def test_a_model_file_that_does_not_fit_is_refused(spoilt: Path) -> None:
    whole = Path(MODEL).read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], b"\x00" + whole[1:]):
        Path(MODEL).write_bytes(content)
        refused(evaluate, f"{MODEL} is not a network that can be read")
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.save(MODEL)
    refused(evaluate, r"mnist_cnn_model.h5 takes \(None, 28, 28, 1\) and gives \(None, 784\)")
    model.add(keras.layers.Lambda(lambda x: x))
    model.save(MODEL)
    refused(evaluate, f"{MODEL} names .*'Lambda', which `define` does not write: refused")


def test_arrays_are_never_unpickled(spoilt: Path) -> None:
    labels = np.array([Path("gone")], dtype=object)
    np.save("data/prepared/test/labels.npy", labels, allow_pickle=True)
    refused(evaluate, "labels.npy cannot be read .*Python objects in dtype")
    np.savez("models/checkpoint.npz", labels, allow_pickle=True)
    train.main()
    assert not Path("models/checkpoint.npz").exists()


def test_validation_has_the_average_of_the_weights_and_the_labels_as_they_are(
    spoilt: Path, dataset: Path
) -> None:
    changes = {"ema": 0.9, "label_smoothing": 0.15, "epochs": 1, "schedule": "one_cycle"}
    write_params(spoilt, dataset=str(dataset), **changes)
    train.main()
    model = keras.models.load_model(MODEL)
    with h5py.File(MODEL) as file:
        averages = []
        file["optimizer_weights"].visititems(
            lambda name, value: averages.append(value[:]) if "average" in name else None
        )
    saved = {weight.numpy().tobytes() for weight in model.trainable_variables}
    assert saved == {average.tobytes() for average in averages}
    validation = read_split(Path("data/prepared/validation"))
    probabilities = model.predict(validation.images[:] / 255, verbose=0).astype(float)
    metrics = json.loads(Path("metrics/train.json").read_text())
    right = probabilities.argmax(axis=1) == validation.labels
    assert right.mean() == pytest.approx(metrics["validation_accuracy"])
    loss = log_loss(validation.labels, probabilities, labels=range(10))
    assert loss == pytest.approx(metrics["validation_loss"], rel=1e-4)
    assert loss == pytest.approx(
        model.evaluate(validation.images[:] / 255, np.eye(10)[validation.labels], verbose=0)[0],
        rel=1e-4,
    )


@pytest.mark.parametrize(
    ("key", "value"), [("label_smoothing", 0.1), ("weight_decay", 0.1), ("shift", 2)]
)
def test_parameters_of_the_training_change_it(
    spoilt: Path, dataset: Path, key: str, value: float
) -> None:
    before = Path(MODEL).read_bytes()
    write_params(spoilt, dataset=str(dataset), **{key: value})
    train.main()
    assert Path(MODEL).read_bytes() != before


def test_a_loss_that_is_not_a_number_stops_training(spoilt: Path, dataset: Path) -> None:
    write_params(
        spoilt, dataset=str(dataset), optimizer="sgd", learning_rate=10.0, dense_units=[32] * 10
    )
    define.main()
    refused(train, r"epoch 1/2: the loss is not a finite number at step \d+ of 38; a smaller")


def test_greetings_are_dropped_and_warnings_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    with without_greetings():
        os.write(2, b"I0000 port.cc:153] oneDNN custom operations are on. You may\n")
        os.write(2, b"W0000 something is really wrong\n")
    assert capfd.readouterr().err == "W0000 something is really wrong\n"


def test_balanced_weights_let_each_class_count_the_same() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / (4 * 6), 10 / (4 * 3), 0, 10 / 4])
    sums = np.bincount(labels, weights[labels], minlength=4)
    np.testing.assert_allclose(sums[[0, 1, 3]], 10 / 4)


def test_class_weights_weigh_the_loss_as_keras_does(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    changes = {"optimizer": "sgd", "learning_rate": 0.05}
    params = read_params(train.TrainParams).model_copy(update=changes)
    split = read_split(Path("data/prepared/train"))
    ours = train.compiled_model(params, split)
    theirs = finished_model(read_architecture(train.ARCHITECTURE), ours)
    weights = np.linspace(0.2, 3, 10, dtype=np.float32)
    order = np.arange(len(split))
    steps = make_steps(ours, params.batch_size, training=True, class_weights=weights)
    run_epoch(ours, steps, split, order, params.batch_size, "epoch")
    theirs.fit(
        split.images[:].astype(np.float32) / 255.0,
        np.eye(10)[split.labels],
        batch_size=params.batch_size,
        shuffle=False,
        verbose=0,
        class_weight=dict(enumerate(weights.tolist())),
    )
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_patience_counts_the_epochs_since_the_best() -> None:
    history = [{"validation_loss": loss} for loss in (0.5, 0.3, 0.4, 0.3)]
    assert is_stuck(history, 2)
    assert not is_stuck(history, 3)
    assert not is_stuck(history[:2], 1)
    assert not is_stuck(history, None)
    assert not is_stuck([], 1)


UNSTEADY = {  # the validation loss soon rises again
    "epochs": 30,
    "learning_rate": 0.02,
    "patience": 2,
    "keep": "best",
    "train_images": 100,
    "class_weight": "balanced",
    "flip": True,
}


def train_as_if_alone() -> None:
    """Run `train` with names that Keras has not numbered yet, which the model file holds."""
    keras.utils.clear_session()
    train.main()


def numbers_follow(history: list[dict[str, float]]) -> None:
    """Check that the files hold the epochs so far, and the metrics of the best of them."""
    if history:
        assert len(pd.read_csv("plots/training.csv")) == len(history)
        kept = min(history, key=lambda row: row["validation_loss"])
        metrics = json.loads(Path("metrics/train.json").read_text())
        assert metrics | {"epoch": kept["epoch"]} == kept


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_patience_ends_the_training(
    spoilt: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(spoilt, dataset=str(dataset), **UNSTEADY)
    load.main()
    train_as_if_alone()
    curves = pd.read_csv("plots/training.csv")
    best = curves["validation_loss"].argmin()
    assert len(curves) == best + 1 + UNSTEADY["patience"] < UNSTEADY["epochs"]
    assert "train: no better epoch in 2: the training ends" in capsys.readouterr().out
    metrics = json.loads(Path("metrics/train.json").read_text())
    for name, value in metrics.items():
        assert curves[name][best] == pytest.approx(value, abs=1e-6)
    model = keras.models.load_model(MODEL)
    validation = read_split(Path("data/prepared/validation"))
    images, labels = validation.images[:] / 255, np.eye(10)[validation.labels]
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(metrics["validation_loss"], rel=1e-4)
    assert accuracy == pytest.approx(metrics["validation_accuracy"])

    uninterrupted, save = contents(Path()), checkpoint.save
    for last in (best + 1, len(curves)):  # one run ends in the best epoch, one when all is done

        def save_and_stop(path: Path, run: dict, history: list, *rest: list, last=last) -> None:
            numbers_follow(history[:-1])
            save(path, run, history, *rest)
            if len(history) == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, "save", save_and_stop)
            train_as_if_alone()
        left = contents(Path())
        assert left.pop("models/checkpoint.npz")
        assert left == uninterrupted, "the earlier numbers are back"
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", partial(save_and_stop, last=None))
            train_as_if_alone()
        assert f"train: going on after epoch {last} of" in capsys.readouterr().out
        assert contents(Path()) == uninterrupted


def test_padding_and_head_let_large_images_through_a_deep_network() -> None:
    params = read_params(define.DefineParams, ROOT / "tests/params.yaml")
    deep = {"image_size": 256, "color_mode": "rgb", "conv_filters": [8] * 8, "padding": "same"}
    model = define.build_network(params.model_copy(update=deep), classes=3)
    assert model.input_shape == (None, 256, 256, 3)
    assert model.get_layer("pool_8").output.shape == (None, 1, 1, 8)
    shallow = deep | {"conv_filters": [8], "head": "average"}
    model = define.build_network(params.model_copy(update=shallow), classes=3)
    assert model.get_layer("average").output.shape == (None, 8)
    # by hand: 3*9*8+8, 8*128+128, 128*3+3
    assert model.count_params() == 224 + 1152 + 387
