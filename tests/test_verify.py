"""The verification of a revision: the honest one holds, and eight lies are found."""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.scores import score_classes
from tests.forks import reproduce
from tests.helpers import ENVIRONMENT, archive_of, commit, dvc, git, write_params, yaml
from verify.committed import expected_metrics
from verify.equivalence import accuracy_difference
from verify.findings import Findings, Output

DATA = "digits.zip"
PROVENANCE = "metrics/provenance.json"

# A lie is a change of the folder in which the honest result lies; it is committed after that.


def verify(folder: Path, revision: str) -> tuple[int, str]:
    """Verify a revision as its make target does; return the exit status and what it prints."""
    words = [sys.executable, "-m", "verify", "--rev", revision]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout


def state(folder: Path) -> list[str]:
    """Return all that a verification must leave as it is."""
    kept = [path for path in sorted(folder.rglob("*")) if path != folder / "verify/report.md"]
    files = [f"{p} {p.lstat().st_mtime_ns}" for p in kept if ".git" not in p.parts and p.is_file()]
    files = [name for name in files if "__pycache__" not in name]
    return [*files, git(folder, "status", "--porcelain"), git(folder, "for-each-ref")]


@pytest.fixture(scope="module")
def honest(committed: Path, dataset: Path) -> Path:
    """Commit a result of a data set that DVC keeps, tagged `honest`."""
    archive_of(dataset, committed / DATA)
    dvc(committed, "add", DATA)
    write_params(committed, dataset=DATA, test_images=400)
    reproduce(committed)
    commit(committed, "honest")
    git(committed, "tag", "honest")
    return committed


@pytest.fixture
def clean(honest: Path) -> Path:
    """Start from the honest result."""
    git(honest, "checkout", "--quiet", "--force", "--detach", "honest")
    dvc(honest, "checkout", "--force", "--quiet")
    return honest


def test_the_honest_result_is_verified_and_nothing_changed(clean: Path) -> None:
    before = state(clean)
    status, printed = verify(clean, "honest")
    assert printed.startswith("verify: Verified: honest (")
    assert status == 0
    assert state(clean) == before
    page = (clean / "verify/report.md").read_text()
    assert page.startswith("# Verified: honest")
    assert page.count("same bytes") == 21


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def lock_again(folder: Path, *names: str) -> None:
    """Write the hashes of files into dvc.lock, as whoever lies well does."""
    for name in names:
        old = hashlib.md5(git_content(folder, name), usedforsecurity=False).hexdigest()
        new = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        edit(folder / "dvc.lock", old, new)


def git_content(folder: Path, name: str) -> bytes:
    """Return a file as committed."""
    return subprocess.check_output(["git", "show", f"HEAD:{name}"], cwd=folder, env=ENVIRONMENT)


def a_metric(folder: Path) -> None:
    path = folder / "metrics/evaluate.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"test_accuracy": 0.999}, indent=2) + "\n")
    lock_again(folder, "metrics/evaluate.json")


def make_predictions_right(folder: Path, images: int) -> None:
    """Make images right, and with them the metrics and hashes that tell of it."""
    path = folder / "plots/predictions.csv"
    predictions = pd.read_csv(path, dtype={"actual": str, "predicted": str})
    wrong = predictions.index[predictions["actual"] != predictions["predicted"]][:images]
    assert len(wrong) == images
    predictions.loc[wrong, "predicted"] = predictions.loc[wrong, "actual"]
    predictions.loc[wrong, "loss"] = -np.log(predictions.loc[wrong, "confidence"])
    predictions.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
    classes = sorted(predictions["actual"].unique())
    expected = expected_metrics(predictions, classes, "test")
    metrics_path = folder / "metrics/evaluate.json"
    metrics = json.loads(metrics_path.read_text())
    metrics |= {name: value for name, (value, _) in expected.items()}
    metrics["test_loss"] = predictions["loss"].mean()
    metrics_path.write_text(json.dumps(metrics, indent=2) + "\n")
    scores = score_classes(predictions, classes)
    path = folder / "plots/per_class.csv"
    scores.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
    lock_again(folder, "plots/predictions.csv", "metrics/evaluate.json", "plots/per_class.csv")


def predictions(folder: Path) -> None:
    make_predictions_right(folder, images=1)
    edit(folder / PROVENANCE, '"processor": "', '"processor": "another, ')
    lock_again(folder, PROVENANCE)


def the_lock(folder: Path) -> None:
    lock = (folder / "dvc.lock").read_text()
    train, evaluate = lock.split("  evaluate:\n")
    before, model = train.split("    - path: models/mnist_cnn_model.h5\n")
    model = f"      hash: md5\n      md5: {'ab' * 16}\n" + "".join(model.splitlines(True)[2:])
    path = "    - path: models/mnist_cnn_model.h5\n"
    (folder / "dvc.lock").write_text(f"{before}{path}{model}  evaluate:\n{evaluate}")


def a_model_of_another_seed(folder: Path) -> None:
    edit(folder / "params.yaml", "\nseed: 42", "\nseed: 43")
    reproduce(folder)
    edit(folder / "params.yaml", "\nseed: 43", "\nseed: 42")
    edit(folder / "dvc.lock", "        seed: 43", "        seed: 42")


def another_data_set(folder: Path) -> None:
    images = folder.parent / "images"
    with zipfile.ZipFile(folder / DATA) as archive:
        archive.extractall(images)
    for image in sorted((images / "test/8").iterdir())[:20]:
        image.unlink()
    (folder / DATA).unlink()  # it may be a link into the cache
    archive_of(images, folder / DATA)
    dvc(folder, "commit", "--force", f"{DATA}.dvc")
    other = yaml.load(folder / f"{DATA}.dvc")["outs"][0]["md5"]
    reproduce(folder)
    git(folder, "checkout", "HEAD", "--", f"{DATA}.dvc")  # of it Git says what everybody has
    known = yaml.load(folder / f"{DATA}.dvc")["outs"][0]["md5"]
    edit(folder / "dvc.lock", other, known)


def parameters(folder: Path) -> None:
    edit(folder / "params.yaml", "\nlearning_rate: 0.003", "\nlearning_rate: 0.002")


def code(folder: Path) -> None:
    edit(folder / "stages/train.py", '"""Run the stage."""', '"""Train."""')


def metrics_of_another_commit(folder: Path) -> None:
    edit(folder / "params.yaml", "\nepochs: 2", "\nepochs: 3")
    dvc(folder, "repro", "train")
    for name in ("params.yaml", "dvc.lock", "plots"):
        git(folder, "checkout", "HEAD", "--", name)


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (a_metric, "evaluate.json says test_accuracy 0.999, and plots/predictions.csv gives"),
        (predictions, "of 1 image the committed model does not say what plots/predictions.csv"),
        (the_lock, "evaluate read models/mnist_cnn_model.h5 of hash "),
        (
            a_model_of_another_seed,
            "other bytes than committed: models/mnist_cnn_model.h5, metrics/train.json",
        ),
        (
            another_data_set,
            "other bytes than committed: data/prepared/test; load gives the same on every",
        ),
        (parameters, "train: learning_rate in params.yaml is not what dvc.lock says"),
        (code, "train: stages/train.py is not the file that dvc.lock says it was run with"),
        (metrics_of_another_commit, "metrics/train.json is not the file that dvc.lock says"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lie_is_found(clean: Path, lie: Callable[[Path], None], found: str) -> None:
    lie(clean)
    commit(clean, "trust me")
    before = state(clean)
    status, printed = verify(clean, "HEAD")
    first = printed.splitlines()[0]
    assert first.startswith("verify: Not verified: HEAD (")
    assert found in first
    assert status == 1
    assert state(clean) == before


def test_data_that_cannot_be_had_is_no_lie(clean: Path) -> None:
    known = yaml.load(clean / f"{DATA}.dvc")["outs"][0]["md5"]
    for name in (f"{DATA}.dvc", "dvc.lock"):
        edit(clean / name, known, "ab" * 16)
    commit(clean, "data of which nobody has a copy")
    status, printed = verify(clean, "HEAD")
    assert "Could not tell: HEAD" in printed
    assert f"the data cannot be had: dvc.lock names {DATA} of hash abababab" in printed
    assert status == 3


def test_a_revision_that_is_none_could_not_be_told(clean: Path) -> None:
    assert verify(clean, "nowhere")[0] == 3


def test_other_packages_are_a_reason_that_could_not_be_told() -> None:
    model = Output("train", "models/mnist_cnn_model.h5", committed="a", here="b")
    packages = {"tensorflow": ("2.21.0", "2.20.0")}
    verdict, reason = Findings(outputs=[model], provenance={}, packages=packages).verdict()
    assert verdict == "Could not tell"
    assert reason.endswith("than the lock names: tensorflow 2.21.0, here 2.20.0")
    assert Findings(outputs=[model], provenance={}).verdict()[0] == "Not verified"


def test_the_interval_of_paired_accuracies_is_as_published() -> None:
    # Bentur et al. (2009), as in Fagerland, Lydersen and Laake (2014): 95% from 0.026 to 0.517.
    before = np.repeat([True, True, False, False], [1, 1, 7, 12])
    after = np.repeat([True, False, True, False], [1, 1, 7, 12])
    found = accuracy_difference(before, after, level=0.95)
    assert (round(found.low, 3), round(found.high, 3)) == (0.026, 0.517)


def test_two_accuracies_at_the_margin_are_seldom_called_equivalent() -> None:
    random = np.random.default_rng(1)
    shares = [0.03, 0.01, 0.94, 0.02]  # gained, lost, right and wrong on both sides
    called = 0
    for counts in random.multinomial(1000, shares, 2000):
        before = np.repeat([False, True, True, False], counts)
        after = np.repeat([True, False, True, False], counts)
        called += accuracy_difference(before, after).is_within(0.02)
    assert called / 2000 < 0.06
