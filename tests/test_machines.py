"""Training on several devices and machines: `make cluster`, and workers started by hand."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import training_loop
from common.console import InputError
from common.splits import Split
from common.workers import read_cluster
from runs.cluster import free_ports
from tests.helpers import ENVIRONMENT, ROOT, command, contents, write_params

# Neither 2 nor 3 divides the last batch, nor 3 the others.
SETTINGS = {
    "train_images": 603,
    "epochs": 4,
    "batch_norm": True,
    "optimizer": "sgd",
    "label_smoothing": 0.1,
    "weight_decay": 0.01,
    "ema": 0.9,
    "color_mode": "rgb",
    "class_weight": "balanced",
}
WRITTEN = ("models/mnist_cnn_model.h5", "metrics/train.json", "plots/training.csv")
# Runs `train` where TensorFlow sees three processors, which stand in for three GPUs.
THREE_DEVICES = """
import os, runpy, sys
sys.path.insert(0, os.environ["PYTHONPATH"])
from common.backend import tf
one = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one] * 3)
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""
PATIENCE = 5  # seconds that a chief waits for a worker in a test, in place of a minute
IMPATIENT = f"""
import os, runpy, sys
sys.path.insert(0, os.environ["PYTHONPATH"])
from common import workers
workers.WAIT_SECONDS = {PATIENCE}
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""


def start(
    folder: Path, ports: list[int] | None = None, rank: int = 0, *words: str
) -> subprocess.Popen:
    """Start `train` in a folder, as a worker if there are ports."""
    task = {"type": "worker", "index": rank}
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports or []]}
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # set by this process's import of TensorFlow
    if ports:
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    return subprocess.Popen(
        [sys.executable, *(words or ("-m", "stages.train"))],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for the end of a process; return its exit status and what it printed."""
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output, errors


def last_losses(folder: Path) -> list[float]:
    """Return loss and accuracy of the last epoch."""
    rows = list(csv.DictReader((folder / "plots/training.csv").open()))
    assert len(rows) == SETTINGS["epochs"]
    return [float(value) for name, value in rows[-1].items() if name != "epoch"]


@pytest.fixture(scope="module")
def prepared(together: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what `train` reads to a folder of its own."""
    folder = tmp_path_factory.mktemp("prepared") / "prepared"
    shutil.copytree(together / "data/prepared", folder / "data/prepared")
    (folder / "models").mkdir()
    for name in ("params.yaml", "models/architecture.json"):
        shutil.copy(together / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def alone(prepared: Path) -> Path:
    """Train on one device; return where."""
    folder = shutil.copytree(prepared, prepared.parent / "alone")
    status, _, errors = end(start(folder))
    assert status == 0, errors
    return folder


@pytest.fixture(scope="module")
def uneven(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data set in which the digits from 5 on are a third as frequent as the others."""
    folder = tmp_path_factory.mktemp("uneven")
    for digit in range(10):
        for split in ("train", "test"):
            (folder / split / str(digit)).mkdir(parents=True)
            images = sorted((dataset / split / str(digit)).iterdir())
            for image in images[:: 1 if digit < 5 else 3]:
                (folder / split / str(digit) / image.name).symlink_to(image)
    return folder


@pytest.fixture(scope="module")
def together(repository: Path, uneven: Path) -> Path:
    """Train with `make cluster` in a copy of the repository; return where."""
    write_params(repository, dataset=str(uneven), **SETTINGS)
    make = ("make", "--assume-old", ".venv/installed", "cluster", "WORKERS=2")
    output = command(repository, *make)
    weights = [line.split()[-1] for line in output.splitlines() if "the same weights" in line]
    assert len(weights) == 2
    assert weights[0] == weights[1]
    assert output.count("epoch 4/4") == 1
    return repository


def test_two_workers_train_as_one_does(alone: Path, together: Path) -> None:
    np.testing.assert_allclose(last_losses(together), last_losses(alone), rtol=0, atol=1e-3)
    assert not (together / "models/checkpoint.npz").exists()
    assert "didn't change" in command(together, "dvc", "repro", "--single-item", "train")


def test_several_devices_train_as_one_does(prepared: Path, alone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared, tmp_path / "devices")
    status, _, errors = end(start(folder, None, 0, "-c", THREE_DEVICES))
    assert (status, errors) == (0, "")
    np.testing.assert_allclose(last_losses(folder), last_losses(alone), rtol=0, atol=1e-3)
    name = "models/mnist_cnn_model.h5"
    assert (folder / name).stat().st_size == (alone / name).stat().st_size


def test_a_lost_worker_stops_the_rest_and_nothing_is_lost(
    prepared: Path, alone: Path, together: Path, tmp_path: Path
) -> None:
    # Two folders: the workers share no disk.
    folders = [shutil.copytree(prepared, tmp_path / name) for name in ("chief", "worker")]
    before = contents(folders[1])
    ports = free_ports(2)
    chief, worker = (start(folder, ports, rank) for rank, folder in enumerate(folders))
    for line in chief.stdout:
        if "epoch 2/4" in line:
            worker.kill()
            break
    status, _, errors = end(chief)
    assert status == 1
    assert errors == (
        f"train: error: worker 1 at 127.0.0.1:{ports[1]} no longer answers; start all workers "
        "again to go on from the last finished epoch\n"
    )
    assert (folders[0] / "models/checkpoint.npz").exists()
    assert not any((folders[0] / name).exists() for name in WRITTEN)
    end(worker)

    other = start(shutil.copytree(folders[0], tmp_path / "alone"))
    pair = [start(folder, ports, rank) for rank, folder in enumerate(folders)]
    for process in pair:
        status, output, errors = end(process)
        assert (status, errors) == (0, "")
        assert "train: going on after epoch" in output
        assert "epoch 1/4" not in output
    for name in WRITTEN:
        assert (folders[0] / name).read_bytes() == (together / name).read_bytes()
    assert contents(folders[1]) == before
    _, output, _ = end(other)
    assert "the checkpoint is that of another run: starting over" in output
    assert contents(tmp_path / "alone") == contents(alone)


def test_workers_that_differ_do_not_train(prepared: Path, dataset: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(prepared, tmp_path / name) for name in ("chief", "worker")]
    write_params(folders[1], dataset=str(dataset), **SETTINGS | {"seed": 1})
    labels = folders[1] / "data/prepared/train/labels.npy"
    np.save(labels, np.load(labels)[::-1])
    ports = free_ports(2)
    for process in [start(folder, ports, rank) for rank, folder in enumerate(folders)]:
        status, _, errors = end(process)
        assert status == 1
        assert errors == (
            f"train: error: worker 1 at 127.0.0.1:{ports[1]} differs from the chief in "
            "data/prepared/train/labels.npy, the parameters\n"
        )


def test_a_port_that_is_taken_is_named(prepared: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, errors = end(start(prepared, [port, *free_ports(1)]))
    assert status == 1
    assert f"worker 0 at 127.0.0.1:{port}, which is this one, cannot use its port" in errors
    assert errors.count("\n") == 1


def test_a_worker_that_does_not_come_up_is_named(prepared: Path) -> None:
    status, _, errors = end(start(prepared, free_ports(2), 0, "-c", IMPATIENT))
    assert status == 1
    assert "train: error: worker 1 at 127.0.0.1:" in errors
    assert errors.endswith(f" did not come up within {PATIENCE} s\n")
    assert errors.count("\n") == 1


WORKERS = ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "must be integers"),
        ('{"task": {"type": "worker", "index": 0}}', "no 'cluster'"),
        ({"cluster": {"worker": WORKERS, "ps": ["c:3"]}}, "workers alone"),
        ({"task": {"type": "evaluator", "index": 0}}, "workers alone"),
        ({"task": {"type": "worker", "index": 2}}, "index 2 of 2"),
        ({"cluster": {"worker": ["a", "b"]}}, "not enough values"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "twice"),
    ],
)
def test_a_malformed_configuration_is_refused(
    monkeypatch: pytest.MonkeyPatch, config: str | dict, reason: str
) -> None:
    if isinstance(config, dict):
        usual = {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 0}}
        config = json.dumps(usual | config)
    monkeypatch.setitem(os.environ, "TF_CONFIG", config)
    with pytest.raises(InputError, match=reason) as raised:
        read_cluster()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("machines", [1, 2, 3, 7])
def test_each_image_is_taken_by_one_machine(monkeypatch: pytest.MonkeyPatch, machines: int) -> None:
    number, batch_size = 203, 5
    split = Split(np.zeros((number, 1, 1, 1), np.uint8), np.arange(number), np.arange(number))
    order = np.random.default_rng(0).permutation(number)
    model = SimpleNamespace(distribute_strategy=None, reset_metrics=lambda: None)
    taken: list[list[int]] = []
    for rank in range(machines):
        monkeypatch.setattr(training_loop, "machine_of", lambda _, rank=rank: (rank, machines))
        mine: list[int] = []

        def steps(_: object, labels: np.ndarray, count: int, mine: list[int] = mine) -> dict:
            mine.extend(labels)
            return {"finite": -(-count // batch_size)}

        training_loop.run_epoch(model, steps, split, order, batch_size, "epoch")
        taken.append(mine)
    assert sorted(label for mine in taken for label in mine) == list(range(number))
    in_batches = [order[i : i + batch_size] for i in range(0, number, batch_size)]
    for rank, mine in enumerate(taken):
        assert mine == [label for batch in in_batches for label in batch[rank::machines]]
