"""The same bytes again: in another folder, after another order of files, after a kill."""

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from common.outputs import replacing
from tests.forks import FORKS, run_copied
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    STAGES,
    as_on_macos,
    contents,
    hear_ctrl_c,
    write_params,
)

pytestmark = pytest.mark.slow
RANDOM = {
    "epochs": 4,
    "dropout": 0.3,
    "batch_norm": True,
    "ema": 0.9,
    "rotation": 10,
    "elastic": 0.5,
    "flip": True,
    "brightness": 0.1,
    "contrast": 0.2,
    "class_weight": "balanced",
    "keep": "best",
    "patience": 2,
}
KILLS = 5


def run(folder: Path, stage: str, environment: dict[str, str] | None = None) -> str:
    """Run a stage to its end as its users do, in a folder that need not hold the code.

    Returns what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_all(
    folder: Path, *stages: str, environment: dict[str, str] | None = None
) -> dict[str, bytes]:
    """Run stages to their end; return every file there is then."""
    for stage in stages or STAGES:
        run(folder, stage, environment)
    return outputs(folder)


def copied(folder: Path, *stages: str) -> dict[str, bytes]:
    """Run stages to their end with `run_copied`; return every file there is then."""
    for stage in stages:
        exitcode, said = run_copied(folder, stage)
        assert exitcode == 0, said
    return outputs(folder)


def outputs(folder: Path) -> dict[str, bytes]:
    """Return every file of the outputs."""
    return {name: data for name, data in contents(folder).items() if name != "params.yaml"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Run the stages once, with everything random and all state there is; return where."""
    folder = tmp_path_factory.mktemp("whole")
    write_params(folder, dataset=str(dataset), **RANDOM)
    run_all(folder)
    return folder


# What users keep for other work, in files and in variables. A notebook sets MPLBACKEND.
KERAS_JSON = '{"floatx": "float64", "image_data_format": "channels_first", "epsilon": 0.1}'
MATPLOTLIBRC = "font.size: 20\naxes.facecolor: red\nlines.linewidth: 5\nsavefig.dpi: 50\n"
OWN_SETTINGS = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "KERAS_BACKEND": "jax",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "16",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
}


def own_settings(home: Path) -> dict[str, str]:
    """Make a home folder with settings of other libraries; return the environment."""
    for folder, name, text in (
        (".keras", "keras.json", KERAS_JSON),
        (".config/matplotlib", "matplotlibrc", MATPLOTLIBRC),
    ):
        (home / folder).mkdir(parents=True)
        (home / folder / name).write_text(text)
    return OWN_SETTINGS | {"HOME": str(home)}


def test_two_runs_give_the_same_bytes(whole: Path, tmp_path: Path, dataset: Path) -> None:
    """In another folder, from files written in another order, as on macOS, by another user."""
    digits = tmp_path / "digits"
    for file in sorted(dataset.rglob("*.jpg"), key=lambda f: -int(f.stem)):
        target = digits / file.relative_to(dataset)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    folder = tmp_path / "again"
    folder.mkdir()
    write_params(folder, dataset=str(digits), **RANDOM)
    (folder / "matplotlibrc").write_text(MATPLOTLIBRC.replace("20", "30"))
    environment = as_on_macos(tmp_path / "macos") | own_settings(tmp_path / "home")
    found = run_all(folder, environment=environment)
    del found["matplotlibrc"]
    expected = outputs(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert {"models/mnist_cnn_model.h5", "plots/loss.png", "plots/samples.png"} < found.keys()


def test_two_runs_in_16_bits_give_the_same_bytes(
    whole: Path, tmp_path: Path, dataset: Path
) -> None:
    found = []
    for name in ("one", "other"):
        folder = shutil.copytree(whole, tmp_path / name)
        write_params(folder, dataset=str(dataset), **RANDOM, precision="mixed_bfloat16")
        found.append(copied(folder, "define", "train", "evaluate"))
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    name = "models/mnist_cnn_model.h5"
    assert found[0][name] != outputs(whole)[name]


def test_the_number_of_cores_changes_no_byte(whole: Path, tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores, and a system that can do without one")
    folder = shutil.copytree(whole, tmp_path / "one core")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started from here has one core
    try:
        found = run_all(folder, "load", "train", "evaluate")
    finally:
        os.sched_setaffinity(0, cores)
    expected = outputs(whole)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_another_seed_gives_other_weights_and_batches(
    whole: Path, tmp_path: Path, dataset: Path
) -> None:
    folder = tmp_path / "seed"
    shutil.copytree(whole, folder)
    write_params(folder, dataset=str(dataset), **RANDOM, seed=43)
    before, after = outputs(whole), copied(folder, "train")
    assert before["models/mnist_cnn_model.h5"] != after["models/mnist_cnn_model.h5"]
    order = [np.random.default_rng([seed, 1]).permutation(600) for seed in (42, 43)]
    assert (order[0] != order[1]).any()


def kill_in(changes: ctypes.c_int, last: int, delay: float) -> None:
    """Count the changes of files in this process; kill it `delay` s after the `last` one begins.

    They are counted from the first, wherever in a stage it may be; 0 kills nothing.
    """

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            changes.value += 1
            if changes.value == last:
                kill = partial(os.kill, os.getpid(), signal.SIGKILL)
                timer = threading.Timer(delay, kill)
                timer.daemon = True  # does not outlast the stage
                timer.start() if delay else kill()

    sys.addaudithook(hook)


def killed_again_and_again(whole: Path, folder: Path, stage: str) -> int:
    """Kill a stage at random moments, run it to the end; check the bytes all the way."""
    shutil.copytree(whole, folder)
    expected = outputs(whole)
    mine = {
        "load": [
            name for name in expected if "prepared" in name or "load" in name or "samp" in name
        ],
        "define": ["models/architecture.json", "metrics/define.json"],
        "train": ["models/mnist_cnn_model.h5", "metrics/train.json", "plots/training.csv"],
        "evaluate": [
            "metrics/evaluate.json",
            *(f"plots/{n}.csv" for n in ("predictions", "per_class", "calibration")),
            *(f"plots/{n}.png" for n in ("loss", "accuracy", "confusion_matrix", "misclassified")),
        ],
    }[stage]

    def forget() -> None:
        for name in mine:
            (folder / name).unlink(missing_ok=True)

    forget()
    changes = FORKS.RawValue(ctypes.c_int)
    exitcode, said = run_copied(folder, stage, partial(kill_in, changes, 0, 0))
    assert exitcode == 0, said
    forget()
    chance = random.Random(stage)  # noqa: S311
    kills = 0
    for number in range(KILLS):
        # Every second kill lies between two changes of files; the stage may end before it comes.
        delay = chance.uniform(0, 0.05) if number % 2 else 0
        last = chance.randint(1, changes.value)
        counted = FORKS.RawValue(ctypes.c_int)
        exitcode, said = run_copied(folder, stage, partial(kill_in, counted, last, delay))
        found = outputs(folder)
        for name in mine:
            if name == "plots/training.csv":  # written as each epoch ends
                assert expected[name].startswith(found.get(name, b""))
            elif name == "metrics/train.json" and name in found:  # the same
                row = ",".join(f"{value:.6f}" for value in json.loads(found[name]).values())
                assert f",{row}\n" in expected["plots/training.csv"].decode()
            else:
                assert found.get(name, expected[name]) == expected[name], name
        if exitcode == 0:
            assert found == expected
            forget()
        else:
            assert exitcode == -signal.SIGKILL, said
            kills += 1
    assert copied(folder, stage) == expected
    return kills


def test_stages_killed_at_random_moments_end_with_the_same_bytes(
    whole: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {s: pool.submit(killed_again_and_again, whole, tmp_path / s, s) for s in STAGES}
    kills = {stage: one.result() for stage, one in runs.items()}
    assert min(kills.values()) >= 2, kills  # the first at least, and one of those that follow


@pytest.fixture(scope="module")
def stopped_once(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stop a training after its first epoch, as Ctrl-C does."""
    folder = tmp_path_factory.mktemp("stopped") / "training"
    shutil.copytree(whole, folder)
    (folder / "models/mnist_cnn_model.h5").unlink()
    numbers = [folder / "metrics/train.json", folder / "plots/training.csv"]
    for path in numbers:
        path.write_text("an earlier result")
    stopped = subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    for line in stopped.stdout:
        if "epoch 1/4" in line:  # with time to spare before the end
            stopped.send_signal(signal.SIGINT)
            break
    _, errors = stopped.communicate()
    assert stopped.returncode == 130
    assert errors == "train: interrupted\n"
    assert [path.read_text() for path in numbers] == ["an earlier result"] * 2
    return folder


@pytest.fixture
def interrupted(stopped_once: Path, tmp_path: Path) -> Path:
    """Copy the training that was stopped."""
    return shutil.copytree(stopped_once, tmp_path / "interrupted")


def test_training_goes_on_after_an_interruption(whole: Path, interrupted: Path) -> None:
    said = run(interrupted, "train")
    assert "going on after epoch" in said
    assert "epoch 1/4" not in said
    assert outputs(interrupted) == outputs(whole)


def test_a_damaged_checkpoint_is_reported_and_left(whole: Path, interrupted: Path) -> None:
    path = interrupted / "models/checkpoint.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    _, said = run_copied(interrupted, "train")
    assert "the checkpoint is damaged" in said
    assert "epoch 1/4" in said
    assert outputs(interrupted) == outputs(whole)


def test_a_checkpoint_of_another_run_is_left(interrupted: Path, dataset: Path) -> None:
    write_params(interrupted, dataset=str(dataset), **RANDOM | {"epochs": 1})
    assert "the checkpoint is that of another run: starting over" in run(interrupted, "train")
    assert not (interrupted / "models/checkpoint.npz").exists()


@pytest.mark.parametrize("stage", ["load", "train", "evaluate"])
def test_a_full_disk_is_one_line_and_keeps_what_was(
    whole: Path, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "full"
    shutil.copytree(whole, folder)

    # Enough for the code that TensorFlow writes to a temporary file, for no output but text.
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, 8192))
    exitcode, said = run_copied(folder, stage, full)
    assert exitcode == 1
    assert said.splitlines()[-1].startswith(f"{stage}: error: ")
    assert outputs(folder) == outputs(whole)


def test_what_killed_processes_left_is_removed_and_that_of_others_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, others = (tmp_path / f"a.csv.new.{n}.partial" for n in (dead.pid, os.getppid()))
    left.mkdir()
    others.touch()
    with replacing(tmp_path / "a.csv") as partial:
        partial.write_text("a")
        assert {path.name for path in tmp_path.iterdir()} == {partial.name, others.name}
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", others.name}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system in memory, whose size a test may set; yield where."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system in memory cannot be mounted here: only Linux's root may do so")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("stage", "free_kilobytes"),
    [
        ("load", (0, 8, 128, 560)),
        ("train", (0, 8, 128, 560, 600, 700, 900)),  # the checkpoint and the model have 520 each
        ("evaluate", (0, 8, 128)),
    ],
)
def test_a_disk_that_fills_up_anywhere_is_one_line_and_keeps_what_was(
    whole: Path, dataset: Path, small_disk: Path, stage: str, free_kilobytes: tuple[int, ...]
) -> None:
    shutil.copytree(whole, small_disk, dirs_exist_ok=True)
    # One epoch writes one checkpoint, so that there may be room for that and not for the model.
    write_params(small_disk, dataset=str(dataset), **RANDOM | {"epochs": 1})

    def run_with(free: int) -> tuple[int | None, list[str]]:
        disk = os.statvfs(small_disk)
        size = (disk.f_blocks - disk.f_bfree) * disk.f_frsize + free * 1024
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        exitcode, said = run_copied(small_disk, stage)
        return exitcode, said.splitlines()

    assert run_with(free=16384)[0] == 0
    expected = outputs(small_disk)
    for free in free_kilobytes:
        exitcode, said = run_with(free)
        assert exitcode in (0, 1), (free, said)
        assert exitcode == 0 or said[-1].startswith(f"{stage}: error: [Errno 28] No space left")
        found = outputs(small_disk)
        if "models/checkpoint.npz" in found:  # from which the next run would go on
            found.pop("models/checkpoint.npz")
            (small_disk / "models/checkpoint.npz").unlink()
        assert found == expected, free
        assert free or exitcode == 1
