"""make new: a repository for other images, whole or not at all."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from common.console import InputError
from common.datasets import open_dataset
from scaffold import new
from scaffold.proposal import propose
from search.space import refused_images
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    command,
    commit,
    contents,
    dvc,
    git,
    hear_ctrl_c,
    stages_run,
    yaml,
)

MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy this repository as it is, and commit."""
    folder = tmp_path_factory.mktemp("original") / "repository"
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "copy")
    return folder


@pytest.mark.slow
def test_a_new_repository_is_theirs_and_runs(
    original: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (original / "LICENSE").open("a") as file:
        file.write("not committed\n")
    (tmp_path / "ignored everywhere").write_text("docs/\n")
    ignoring = {"COUNT": "1", "KEY_0": "core.excludesFile"}
    ignoring["VALUE_0"] = str(tmp_path / "ignored everywhere")
    for key, value in ignoring.items():
        monkeypatch.setitem(ENVIRONMENT, f"GIT_CONFIG_{key}", value)
    theirs = tmp_path / "it's theirs"
    said = command(original, *MAKE, "new", f"DIR={theirs}", f"DATASET={dataset}")
    assert "new: the code is that of the last commit; your changes since are not in it\n" in said
    assert "new: 1,797 images in 10 classes, with test/ set apart\n" in said
    assert "new: color_mode: grayscale, because 0 of the 1,797 images show colours\n" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ignored everywhere", theirs.name]

    assert "docs/design.md" in git(theirs, "ls-files").splitlines()
    assert git(theirs, "log", "--format=%an: %s") == "test: Begin with 1,797 images in 10 classes\n"
    assert git(theirs, "status", "--short") == ""
    assert "not committed" not in (theirs / "LICENSE").read_text()
    command(theirs, "git", "grep", "--ignore-case", "mnist", fails=True)
    assert not [name for name in git(theirs, "ls-files").splitlines() if "mnist" in name.lower()]
    command(theirs, "ruff", "check", ".")
    command(theirs, "ruff", "format", "--check", ".")
    changed = {
        key: value
        for key, value in yaml.load(theirs / "params.yaml").items()
        if value != yaml.load(original / "params.yaml")[key]
    }
    assert changed == {
        "dataset": "data/images.zip",
        "train_images": None,
        "validation_images": 134,
        "test_images": None,
    }

    monkeypatch.chdir(theirs)
    space = yaml.load(theirs / "spaces/default.yaml")
    fixed = {key: entry[0] for key, entry in space.items() if len(entry) == 1}
    assert refused_images(yaml.load(theirs / "params.yaml") | fixed) == []

    assert stages_run(dvc(theirs, "repro")) == ["load", "define", "train", "evaluate"]
    commit(theirs, "My baseline")
    tests = ("tests/test_docs.py", "tests/test_house.py")
    assert " passed" in command(theirs, sys.executable, "-m", "pytest", "-n0", "-q", *tests)

    dvc(theirs, "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    commit(theirs, "A remote")
    dvc(theirs, "push")
    git(tmp_path, "clone", "--quiet", theirs.name, "clone")
    dvc(tmp_path / "clone", "pull")
    assert stages_run(dvc(tmp_path / "clone", "repro")) == []
    assert git(tmp_path / "clone", "status", "--short") == ""


def test_large_photos_are_proposed_in_colour_and_not_too_large(tmp_path: Path) -> None:
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (tmp_path / name).mkdir()
        for left in range(0, 400, 40):
            crop = Image.fromarray(photo).crop((left, 0, left + 240, 300))
            crop.save(tmp_path / name / f"{left}.jpg")
    assert propose(open_dataset(tmp_path)).parameters == {
        "classes": None,
        "train_images": None,
        "validation_images": 1,
        "test_images": None,
        "color_mode": "rgb",
        "image_size": 128,
        "head": "average",
    }


def test_validation_leaves_each_class_an_image_to_train_on(tmp_path: Path) -> None:
    for name in range(19):  # each has one image to train on when one tests, and 18 has two
        (tmp_path / str(name)).mkdir()
        for number in range(2 + (name == 18)):
            Image.new("L", (28, 28), 50 * number).save(tmp_path / str(name) / f"{number}.png")
    assert propose(open_dataset(tmp_path)).parameters["validation_images"] == 1


def small(folder: Path) -> Path:
    """Write a data set of two classes with five images each."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (28, 28), 50 * number).save(folder / name / f"{number}.png")
    return folder


def cut_off(images: Path) -> None:
    """Cut an image off."""
    (images / "b/3.png").write_bytes((images / "b/3.png").read_bytes()[:40])


def one_class(images: Path) -> None:
    """Leave one class with an image that has the suffix of one."""
    for number in range(5):
        (images / f"a/{number}.png").rename(images / f"a/{number}.gif")


def lonely(images: Path) -> None:
    """Leave one image of a class."""
    for number in range(4):
        (images / f"a/{number}.png").unlink()


@pytest.mark.parametrize(
    ("directory", "images", "spoil", "message"),
    [
        ("", "images", None, "^DIR is not set: make new DIR="),
        ("new", "", None, "^DATASET is not set: make new DIR="),
        ("images", "images", None, "^DIR: images exists; give the name of a folder that does not$"),
        ("no/new", "images", None, "^DIR: no, in which it is to be made, is no folder$"),
        (str(ROOT / "new"), "images", None, "^DIR: .*/new lies in this repository; give a place"),
        ("images/new", "images", None, "^DIR: images/new lies in the data set; give a place"),
        ("new", "no", None, "^dataset: no does not exist; it must be a folder or zip archive"),
        ("new", "images/a", None, "^dataset: images/a has no images in class folders; it must"),
        ("new", "images", one_class, "^dataset: there must be two or more class folders; found b$"),
        ("new", "images", lonely, "^dataset: a/ has one image; a class must have two or more"),
        ("new", "images", cut_off, r"^1 of 10 images cannot be read:\n  b/3.png: the image is cut"),
    ],
)
def test_what_cannot_be_made_is_one_error_and_nothing_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    images: str,
    spoil: Callable[[Path], None] | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path / "images")
    if spoil:
        spoil(tmp_path / "images")
    before = contents(tmp_path)
    monkeypatch.setattr(sys, "argv", ["new", directory, images])
    with pytest.raises(InputError, match=message):
        new.main()
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.slow
def test_without_a_name_for_git_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [key for key in ENVIRONMENT if key.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delitem(ENVIRONMENT, key)
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_NOSYSTEM", "1")
    small(tmp_path / "images")
    words = (f"DIR={tmp_path}/new", f"DATASET={tmp_path}/images")
    said = command(ROOT, *MAKE, "new", *words, fails=True)
    assert said.startswith("new: error: Git does not know who you are, as the author of the first")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_git_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    new.run_in(tmp_path, "git", "init", "--quiet")
    signing = ("-c", "commit.gpgsign=true", "-c", "gpg.program=false")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    message = r"^nothing is made, as this failed there: git .* commit .*: error: gpg failed to sign"
    with pytest.raises(InputError, match=message):
        new.run_in(tmp_path, *new.GIT, *signing, *identity, "commit", "--allow-empty", "-m", "A")


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["no space", "Ctrl-C"])
def test_what_ends_in_the_middle_leaves_nothing(dataset: Path, tmp_path: Path, reason: str) -> None:
    def prepare() -> None:
        hear_ctrl_c()
        if reason == "no space":  # for the archive; the code is smaller
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    run = subprocess.Popen(
        [sys.executable, "-m", "scaffold.new", str(tmp_path / "new"), str(dataset)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )
    if reason == "Ctrl-C":
        while not list(tmp_path.glob("new.*.partial/.git")):
            assert run.poll() is None
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate()
    expected = {
        "no space": (1, "new: error: [Errno 27] File too large\n"),
        "Ctrl-C": (130, "new: interrupted\n"),
    }
    assert (run.returncode, errors) == expected[reason]
    assert list(tmp_path.iterdir()) == []
