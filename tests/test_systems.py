"""Other machines than this one: GPUs, shares of a machine, and the Python that make finds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.processors import usable_processors
from runs.workers import describe_shares, machine_of_job, visible_gpus
from tests.helpers import ROOT, command

TWO_GPUS = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)
"""
# Says what the process that runs it has.
HAS = """
import os
from common.processors import usable_processors
print(os.environ["CUDA_VISIBLE_DEVICES"], usable_processors())
"""


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the GPUs that this machine may have been told."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a script be the first `nvidia-smi` on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("no_gpu")
def test_each_job_has_a_gpu_and_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_on_path(monkeypatch, tmp_path, f"[ $1 = -L ] && printf '%s' '{TWO_GPUS}'")
    cores = usable_processors()
    found = []
    for job in range(3):
        with machine_of_job(job, 3):
            found.append(subprocess.check_output([sys.executable, "-c", HAS], text=True).split())
    gpus, processors = zip(*found, strict=True)
    assert gpus == ("GPU-aaaa", "GPU-bbbb", "GPU-aaaa")
    if hasattr(os, "sched_getaffinity"):
        assert sum(map(int, processors)) == max(cores, 3)
    assert usable_processors() == cores
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert describe_shares(3).endswith(" and a GPU of 2, together with others")
    assert describe_shares(1) == f"{cores} of {cores} cores and a GPU of 2"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("named", "script", "gpus"),
    [
        ("1, 0", "exit 1", ["1", "0"]),
        ("", f"printf '{TWO_GPUS}'", []),
        ("-1", f"printf '{TWO_GPUS}'", []),
        (None, "echo 'No devices were found'; exit 6", []),
        (None, "echo 'NVIDIA-SMI has failed because it could not reach the driver'; exit 9", []),
    ],
)
def test_the_gpus_that_are_named_or_listed_are_shared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None, script: str, gpus: list[str]
) -> None:
    put_on_path(monkeypatch, tmp_path, script)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus
    cores = usable_processors()
    if not gpus:
        with machine_of_job(0, 1):
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == named
        assert describe_shares(cores) == f"1 of {cores} cores"
        assert describe_shares(cores + 1) == f"a core, of {cores}, together with others"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cuda", "device", "visible", "line"),
    [
        (False, False, "0", None),
        (True, True, "-1", None),
        (True, False, "0", "CUDA is installed (`make GPU=1`), but the system shows no NVIDIA GPU;"),
        (False, True, "0", "this machine has an NVIDIA GPU, but CUDA is not installed; `make GPU="),
        (True, True, "0", "TensorFlow cannot use it: failed call to cuInit: INTERNAL: CUDA error:"),
    ],
)
def test_a_gpu_that_is_not_used_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    cuda: bool,
    device: bool,
    visible: str,
    line: str | None,
) -> None:
    from common import backend, devices

    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.syspath_prepend(str(tmp_path))
    if cuda:
        package = tmp_path / "nvidia_cuda_runtime_cu12-12.9.79.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Name: nvidia-cuda-runtime-cu12\nVersion: 12.9.79\n")
    if device:
        (tmp_path / "nvidia0").touch()
    with backend.without_greetings():
        os.write(2, b"E cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: none\n")
    devices.say_what_trains(threads=2)
    output, errors = capfd.readouterr()
    first, *others = output.splitlines()
    assert first.startswith(f"train: training on 2 threads, {usable_processors()} core")
    assert len(others) == (line is not None)
    if line:
        assert others[0].startswith("train: warning: no GPU is used: ")
        assert line in others[0]
    assert errors == ""
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def planned(folder: Path, *words: str) -> str:
    """Return what make would run in a folder with the Makefile and the locks."""
    return command(folder, "make", "--dry-run", "--no-print-directory", *words)


def test_make_keeps_the_lock_that_was_chosen(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt", "requirements-test.txt", "requirements-gpu.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    gpu, remove = "--requirement requirements-gpu.txt", "pip uninstall"
    command(tmp_path, "git", "init", "--quiet")
    assert gpu in planned(tmp_path, "GPU=1")
    assert gpu not in planned(tmp_path, "style")

    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed").touch()
    assert "pip install" not in planned(tmp_path, "style")
    assert gpu in planned(tmp_path, "style", "GPU=1")

    (tmp_path / ".venv/gpu").touch()
    for words in (["style"], ["style", "GPU=1"]):
        assert "pip install" not in planned(tmp_path, *words)
    removing = planned(tmp_path, "GPU=0")
    assert removing.index(f"{remove} --quiet --yes {gpu}") < removing.index("pip install")
    assert removing.count(gpu) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["GPU=yes"], "GPU is 'yes'; it must be 1 or 0"),
        (["PYTHON=./old"], "error: ./old is Python 3.9.6; it must be 3.11, 3.12 or 3.13, as in"),
    ],
)
def test_what_make_cannot_use_is_said_before_anything_is_made(
    tmp_path: Path, words: list[str], line: str
) -> None:
    for name in ("Makefile", "requirements.txt", "requirements-test.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    command(tmp_path, "git", "init", "--quiet")
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.6 || exit 1\n")
    old.chmod(0o755)
    assert line in command(tmp_path, "make", ".venv/installed", *words, fails=True)
    assert not (tmp_path / ".venv").exists()
