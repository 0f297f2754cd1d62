"""A small data set of real digits, and copies of the repository to run it in."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from sklearn.datasets import load_digits

import common.decoding  # noqa: F401  sets OpenCV's limit, which holds only if set before its import
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
    "test_machines.py",
    "test_sharing.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what `-m` does not ask for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow whatever works in a copy of the repository, in which DVC runs stages.

    The longest files come first.
    """
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for item in items:
        if {"repository", "first_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of real digits (scikit-learn's, 8x8, enlarged to 28x28) as JPEG files."""
    root = tmp_path_factory.mktemp("dataset")
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = root / ("test" if index % 4 == 0 else "train") / str(label) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((image * 15).astype(np.uint8))
        grey.resize((28, 28), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path) -> Path:
    """Enter an empty folder with a params.yaml for the small data set."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, dataset=str(dataset))
    return tmp_path


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Run the pipeline once in a copy of the repository, and commit; tests work in copies of it.

    The first commit is the code with small settings, the second has the results too. The copy
    has a DVC cache of its own.
    """
    folder = tmp_path_factory.mktemp("first") / "repository"
    folder.mkdir()
    copy_repository(folder)
    write_params(folder, dataset=str(dataset))
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "copy")
    output = dvc(folder, "repro")
    assert stages_run(output) == ["load", "define", "train", "evaluate"]
    assert "Test Accuracy" in output
    assert "oneDNN" not in output
    commit(folder, "results")
    return folder


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
