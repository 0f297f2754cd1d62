"""A small data set of real digits, and copies of the repository to run it in."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image

from common.processors import usable_processors
from tests.helpers import commit, copy_repository, dvc, git, stages_run, write_params

# How fast a machine is decides nothing about whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# The files that take minutes: were one of them begun last, one process would work on alone.
LONG = (
    "test_pipeline.py",
    "test_reproducible.py",
    "test_runs.py",
    "test_verify.py",
    "test_review.py",
    "test_search.py",
    "test_machines.py",
    "test_sharing.py",
    "test_search_machines.py",
    "test_best.py",
    "test_new.py",
    "test_stages.py",
    "test_bad_input.py",
    "test_own_images.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a process for each core, and one more where slow tests run: they wait now and then."""
    return usable_processors() + ("not slow" not in config.option.markexpr)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what `-m` does not ask for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow whatever works in a copy of the repository, in which DVC runs stages.

    The longest files come first.
    """
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for item in items:
        if {"repository", "first_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that the first of the processes that run the tests makes for all of them."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of another process that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def write_digits(folder: Path) -> None:
    """Write real digits (scikit-learn's, 8x8, enlarged to 28x28) as JPEG files."""
    from sklearn.datasets import load_digits  # takes a second, which every process would wait

    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if index % 4 == 0 else "train") / str(label) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((image * 15).astype(np.uint8))
        grey.resize((28, 28), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of real digits, which no test changes."""
    return made_once(tmp_path_factory, "dataset", write_digits)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path) -> Path:
    """Enter an empty folder with a params.yaml for the small data set."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, dataset=str(dataset))
    return tmp_path


def run_first(folder: Path, dataset: Path) -> None:
    """Copy the repository, with small settings; commit; run the pipeline; commit."""
    copy_repository(folder)
    write_params(folder, dataset=str(dataset))
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "copy")
    output = dvc(folder, "repro")
    assert stages_run(output) == ["load", "define", "train", "evaluate"]
    assert "Test Accuracy" in output
    assert "oneDNN" not in output
    commit(folder, "results")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Run the pipeline once in a copy of the repository; tests work in copies of it.

    The first commit is the code with small settings, the second has the results too. The copy
    has a DVC cache of its own.
    """
    return made_once(tmp_path_factory, "first", partial(run_first, dataset=dataset))


@pytest.fixture(scope="module")
def committed(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository in which the pipeline was run and committed, with its cache."""
    folder = tmp_path_factory.mktemp("committed") / "repository"
    return shutil.copytree(first_run, folder, symlinks=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Copy the repository, committed, with small settings, in which nothing was run."""
    folder = tmp_path_factory.mktemp("repository")
    copy_repository(folder)
    write_params(folder, dataset=str(dataset))
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "copy")
    return folder
