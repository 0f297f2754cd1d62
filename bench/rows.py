"""The rows of the benchmark: what each compares, and how each of its two sides is measured.

A side is a function of the prepared folders and of the number of the run, from 1. It returns
figures by their units.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.commands import (
    ARCHIVE,
    ROOT,
    Figures,
    measure_memory,
    measure_seconds,
    read_figures,
    run_command,
    sum_of_epochs,
)
from bench.folders import Folders, make_stage_folder, python_with_torch, yaml
from bench.memory import measure_processes

STAGES = ("load", "define", "train", "evaluate")
RECIPES = {name: yaml.load(ROOT / f"recipes/{name}.yaml") for name in ("fast", "accurate")}
DEFAULT_NUMBERS = {"train_images": 10_000, "validation_images": 2000, "test_images": 2000}
NO_AUGMENTATION = {
    **dict.fromkeys(
        ("rotation", "shift", "scale", "shear", "elastic", "brightness", "contrast"), 0
    ),
    "flip": False,
}
DEFAULT_EPOCHS = 5
KERAS_EPOCHS = 8
MAKE = ("make", "--old-file=.venv/installed")  # with the packages of this repository

Side = Callable[[Folders, int], Figures]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    title : str
        What is measured, its unit, and against what.
    unit : str
        The figure of both sides that is compared.
    ours, theirs : callable
        The two sides: this project, and what its users would run instead.
    goal : str
        ``>= 20`` or ``<= 1.0``, for the ratio of ours to theirs.
    runs : int
        How often each side is measured.
    """

    title: str
    unit: str
    ours: Side
    theirs: Side
    goal: str
    runs: int = 5


def decode(folders: Folders, dataset: Path) -> Figures:
    """Measure how many images a second `load` finds and decodes."""
    return read_figures(folders.all_images, "bench.ours", "decode", dataset)


def flow_from_directory(folders: Folders) -> Figures:
    """Measure how many images a second Keras's `flow_from_directory` reads."""
    return read_figures(folders.temporary, "bench.peers", "flow", folders.images)


def pipeline(folders: Folders) -> Figures:
    """Measure the four stages under `dvc repro`, each of them run anew."""
    command = ("dvc", "repro", "--force", "--single-item", *STAGES)
    return measure_seconds(folders.repository, *command)


def notebook(folders: Folders) -> Figures:
    """Measure the notebook as one script."""
    script = ROOT / "bench" / "notebook.py"
    return measure_seconds(folders.temporary, "python", str(script), str(folders.temporary))


def experiment(folders: Folders, number: int) -> Figures:
    """Measure an experiment with another number of epochs, without the time of the epochs."""
    setting = f"epochs={DEFAULT_EPOCHS + number}"  # each run has its own, lest DVC know the result
    start = time.perf_counter()
    output = run_command(folders.repository, "dvc", "exp", "run", "-S", setting)
    seconds = time.perf_counter() - start
    return {"seconds": seconds - sum_of_epochs(output)}


def empty_experiment(folders: Folders, number: int) -> Figures:
    """Measure an experiment that does nothing, and two imports of TensorFlow."""
    project = folders.empty_project
    empty = measure_seconds(project, "dvc", "exp", "run", "-S", f"epochs={number}")
    imports = [measure_seconds(project, "python", "-c", "import tensorflow") for _ in range(2)]
    return {"seconds": sum(figures["seconds"] for figures in (empty, *imports))}


def train(folders: Folders, **changes: object) -> Figures:
    """Measure how many images a second `train` trains on."""
    folder = make_stage_folder(folders.temporary / "training_speed", **changes)
    if not (folder / "data").exists():
        run_command(folder, "python", "-m", "stages.load")
    run_command(folder, "python", "-m", "stages.define")
    return read_figures(folder, "bench.ours", "train")


def train_accurate(folders: Folders, **changes: object) -> Figures:
    """Measure the training of the recipe `accurate`, on as many images as by default."""
    return train(folders, **RECIPES["accurate"] | DEFAULT_NUMBERS | changes)


def train_with_peers(folders: Folders, batch_size: int, precision: str) -> Figures:
    """Measure the training with Keras's `fit` and with PyTorch; return that of the faster."""
    arguments = (folders.repository / "data" / "prepared", batch_size, precision)
    keras = read_figures(folders.temporary, "bench.peers", "keras_fit", *arguments)
    torch = read_figures(
        folders.temporary, "bench.peers", "torch_eager", *arguments, python=python_with_torch()
    )
    speeds = [figures["images_per_second"] for figures in (keras, torch)]
    print(f"    Keras, PyTorch: {speeds[0]:,.0f}, {speeds[1]:,.0f}", flush=True)
    return {"images_per_second": max(speeds)}


def recipe_fast(folders: Folders, seed: int) -> Figures:
    """Measure the epochs of the recipe `fast`, and the accuracy that they reach."""
    folder = make_stage_folder(folders.temporary / "fast", **RECIPES["fast"] | {"seed": seed})
    output = "".join(run_command(folder, "python", "-m", f"stages.{stage}") for stage in STAGES)
    metrics = json.loads((folder / "metrics" / "evaluate.json").read_text())
    return {"seconds": sum_of_epochs(output), "test_accuracy": metrics["test_accuracy"]}


def recipe_of_keras(folders: Folders, seed: int) -> Figures:
    """Measure the epochs of the recipe on keras.io, and the accuracy that they reach."""
    prepared = folders.all_images / "data" / "prepared"
    arguments = (prepared, seed, KERAS_EPOCHS)
    return read_figures(folders.temporary, "bench.peers", "keras_recipe", *arguments)


def memory_of_stage(folders: Folders, stage: str) -> Figures:
    """Measure the peak memory of a stage on all 70,000 images."""
    return measure_memory(folders.all_images, "python", "-m", f"stages.{stage}")


def memory_of_notebook(folders: Folders) -> Figures:
    """Measure the peak memory of the notebook's approach on all 70,000 images."""
    command = ("python", "-m", "bench.peers", "notebook_memory", str(folders.images))
    return measure_memory(folders.temporary, *command)


def photos(folders: Folders, side: str, color_mode: str) -> Figures:
    """Measure how many photos a second this project (`ours`) or `keras` reads and decodes."""
    folder = folders.temporary / "photos"
    if not folder.exists():
        read_figures(folders.temporary, "bench.photos", "make", folder)
    return read_figures(folders.temporary, "bench.photos", side, folder, color_mode)


def trained(folders: Folders) -> tuple[Path, Path, Path]:
    """Return a trained model, the same exported, and the test images as an array."""
    models, prepared = folders.repository / "models", folders.repository / "data" / "prepared"
    exported = models / "model.onnx"
    if not exported.exists():
        run_command(folders.repository, *MAKE, "export")
    return models / "mnist_cnn_model.h5", exported, prepared / "test" / "images.npy"


def ask_one(folders: Folders) -> Figures:
    """Measure how long the exported model takes for one image."""
    _, exported, images = trained(folders)
    return read_figures(folders.temporary, "bench.inference", "one", exported, images)


def ask_keras(folders: Folders) -> Figures:
    """Measure how long `keras.Model.predict` takes for one image."""
    model, _, images = trained(folders)
    return read_figures(folders.temporary, "bench.inference", "keras_one", model, images)


def predict_folder(folders: Folders) -> Figures:
    """Measure `make predict` of the 10,000 test images, as files: its time and memory."""
    trained(folders)
    images = f"IMAGES={folders.images / 'test'}"
    table = f"CSV={folders.temporary / 'ours.csv'}"
    return measure_processes(folders.repository, *MAKE, "predict", images, table)


def predict_folder_with_keras(folders: Folders) -> Figures:
    """Measure a script that predicts the same files with Keras: its time and memory."""
    model, _, _ = trained(folders)
    arguments = (str(model), str(folders.images / "test"))
    command = ("python", "-m", "bench.inference", "keras_folder", *arguments)
    return measure_processes(folders.temporary, *command)


ROWS = {
    "1": Row(
        "read and decode 70,000 JPEG files from the archive, images/s, against "
        "`flow_from_directory`",
        "images_per_second",
        lambda folders, _: decode(folders, ARCHIVE),
        lambda folders, _: flow_from_directory(folders),
        ">= 10",
    ),
    "2": Row(
        "the same from a folder, images/s",
        "images_per_second",
        lambda folders, _: decode(folders, folders.images),
        lambda folders, _: flow_from_directory(folders),
        ">= 8",
    ),
    "3": Row(
        "`dvc repro` of the four stages, default settings, s, against the notebook as a script",
        "seconds",
        lambda folders, _: pipeline(folders),
        lambda folders, _: notebook(folders),
        "<= 0.6",
        runs=3,
    ),
    "4": Row(
        "`dvc exp run -S epochs=...` less its epochs, s, against a bare `dvc exp run` and two "
        "imports of TensorFlow",
        "seconds",
        experiment,
        empty_experiment,
        "<= 0.75",
        runs=3,
    ),
    "5": Row(
        "no-op `dvc repro`, s, against that of an empty one-stage project",
        "seconds",
        lambda folders, _: measure_seconds(folders.repository, "dvc", "repro"),
        lambda folders, _: measure_seconds(folders.empty_project, "dvc", "repro"),
        "<= 1.5",
    ),
    "6a": Row(
        "training, batch 32, float32, images/s, against the better of Keras `fit` and PyTorch",
        "images_per_second",
        lambda folders, _: train(folders, batch_size=32, precision="float32"),
        lambda folders, _: train_with_peers(folders, 32, "float32"),
        ">= 1.4",
    ),
    "6b": Row(
        "training, batch 128, bfloat16, images/s, against the better of the two",
        "images_per_second",
        lambda folders, _: train(folders, batch_size=128, precision="mixed_bfloat16"),
        lambda folders, _: train_with_peers(folders, 128, "mixed_bfloat16"),
        ">= 1.3",
    ),
    "7": Row(
        "training to 99.0% test accuracy, s, against eight epochs of the keras.io recipe",
        "seconds",
        recipe_fast,
        recipe_of_keras,
        "<= 0.1",
    ),
    "8a": Row(
        "peak memory of `load`, 70,000 images, MB, against the notebook's approach",
        "megabytes",
        lambda folders, _: memory_of_stage(folders, "load"),
        lambda folders, _: memory_of_notebook(folders),
        "<= 0.15",
        runs=3,
    ),
    "8b": Row(
        "peak memory of `train`, 60,000 images, MB, against the notebook's approach",
        "megabytes",
        lambda folders, _: memory_of_stage(folders, "train"),
        lambda folders, _: memory_of_notebook(folders),
        "<= 0.6",
        runs=3,
    ),
    "9": Row(
        "training of `accurate`, images/s, against the same without augmentation",
        "images_per_second",
        lambda folders, _: train_accurate(folders),
        lambda folders, _: train_accurate(folders, **NO_AUGMENTATION),
        ">= 0.8",
    ),
    "10a": Row(
        "read 2,000 photos of 500x375 in grey, 64x64, images/s, against "
        "`image_dataset_from_directory`",
        "images_per_second",
        lambda folders, _: photos(folders, "ours", "grayscale"),
        lambda folders, _: photos(folders, "keras", "grayscale"),
        ">= 1.5",
    ),
    "10b": Row(
        "the same in colour",
        "images_per_second",
        lambda folders, _: photos(folders, "ours", "rgb"),
        lambda folders, _: photos(folders, "keras", "rgb"),
        ">= 1.9",
    ),
    "11": Row(
        "the exported model, one image, ms, against `keras.Model.predict`",
        "milliseconds",
        lambda folders, _: ask_one(folders),
        lambda folders, _: ask_keras(folders),
        "<= 0.0033",
        runs=3,
    ),
    "12a": Row(
        "`make predict` of 10,000 JPEG files, s, against `load_model`, "
        "`image_dataset_from_directory` and `predict`",
        "seconds",
        lambda folders, _: predict_folder(folders),
        lambda folders, _: predict_folder_with_keras(folders),
        "<= 0.25",
    ),
    "12b": Row(
        "the same, MB in all processes",
        "all_processes",
        lambda folders, _: predict_folder(folders),
        lambda folders, _: predict_folder_with_keras(folders),
        "<= 0.5",
        runs=3,
    ),
}
