"""A small data set of real digits, and a copy of the repository to run it in."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

import stages.images  # noqa: F401  sets OpenCV's limit, which holds only if set before its import
from review.revision import folder_environment

# How fast a machine is decides nothing about whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
yaml = YAML(typ="safe")  # as DVC reads it
SMALL = {
    "train_images": 600,
    "validation_images": 100,
    "test_images": 100,
    "conv_filters": [8],
    "dense_units": [32],
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.003,
}


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


def archive_of(folder: Path, path: Path, prefix: str = "") -> Path:
    """Return a stored zip archive of a folder's files."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def archives_of(folder: Path, path: Path, count: int) -> Path:
    """Return a folder of several stored zip archives that hold a folder's files in turn."""
    path.mkdir()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for index in range(count):
        with zipfile.ZipFile(path / f"{index}.zip", "w") as archive:
            for file in files[index::count]:
                archive.write(file, str(file.relative_to(folder)))
    return path


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path) -> Path:
    """Enter an empty folder with a params.yaml for the small data set."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, dataset=str(dataset))
    return tmp_path


def write_params(folder: Path, **changes: object) -> None:
    """Write params.yaml: the committed one, made small, with changes."""
    params = yaml.load(ROOT / "params.yaml") | SMALL | changes
    yaml.dump(params, folder / "params.yaml")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Copy the repository, committed, with a DVC cache of its own and small settings."""
    folder = tmp_path_factory.mktemp("repository")
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file() and not name.startswith(("plots/", "metrics/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in ("dvc.lock", "data/dvc.lock", "data/dvc.yaml"):  # the copy has its own data
        (folder / name).unlink(missing_ok=True)
    write_params(folder, dataset=str(dataset))
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "copy")
    return folder


ENVIRONMENT = folder_environment() | {  # as outside of a hook, which may run these tests
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


def command(folder: Path, *words: str, fails: bool = False) -> str:
    """Run a command as a user would and return all it prints; it must succeed, or fail."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def git(folder: Path, *words: str) -> str:
    """Run git."""
    return command(folder, "git", *words)


def dvc(folder: Path, *words: str, fails: bool = False) -> str:
    """Run dvc."""
    return command(folder, "dvc", *words, fails=fails)


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
