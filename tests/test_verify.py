"""The verification of a revision: the honest one holds, and lies are found."""

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

from common.scores import calibration_of, score_classes
from review.revision import resolve
from tests.forks import reproduce
from tests.helpers import ENVIRONMENT, archive_of, commit, dvc, git, write_params, yaml
from verify.committed import contradictions, expected_metrics
from verify.equivalence import accuracy_difference, changed_images
from verify.findings import Findings, Margin, Output, compare_predictions
from verify.numbers import Runs

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
    tables = {
        "plots/per_class.csv": score_classes(predictions, classes),
        "plots/calibration.csv": calibration_of(predictions),
    }
    for name, table in tables.items():
        table.to_csv(folder / name, index=False, float_format="%.6f", lineterminator="\n")
    lock_again(folder, "plots/predictions.csv", "metrics/evaluate.json", *tables)


def frozen(folder: Path) -> None:
    make_predictions_right(folder, images=3)
    dvc(folder, "freeze", "evaluate")


def curves(folder: Path) -> None:
    table = folder / "plots/training.csv"
    training = pd.read_csv(table)
    training["validation_loss"] *= 0.3
    training.to_csv(table, index=False, float_format="%.6f", lineterminator="\n")
    metrics = folder / "metrics/train.json"
    numbers = json.loads(metrics.read_text())
    numbers["validation_loss"] *= 0.3
    metrics.write_text(json.dumps(numbers, indent=2) + "\n")
    edit(folder / PROVENANCE, '"processor": "', '"processor": "another, ')
    lock_again(folder, "plots/training.csv", "metrics/train.json", PROVENANCE)


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
        (frozen, "by a stage that runs: the stage evaluate is frozen in dvc.yaml: it never runs"),
        (
            curves,
            "no processor makes these numbers: plots/training.csv says validation_loss of row",
        ),
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


@pytest.mark.parametrize(
    ("predicted", "confidence", "loss", "is_other"),
    [
        ("a", 0.981, 0.0192, False),  # as 16-bit numbers may say it
        ("a", 0.97, 0.0305, True),
        ("b", 0.99, 4.6, True),
        ("a", 0.99, 4.6, True),
    ],
)
def test_what_a_model_says_on_another_processor(
    predicted: str, confidence: float, loss: float, is_other: bool
) -> None:
    here = {"predicted": "a", "confidence": 0.99, "loss": 0.01005}
    there = {"predicted": predicted, "confidence": confidence, "loss": loss}
    row = {f"{name}_before": value for name, value in there.items()}
    row |= {f"{name}_after": value for name, value in here.items()}
    found = changed_images(pd.DataFrame([row]))
    assert found == is_other
    equivalence = compare_predictions(SEEN, SEEN, Margin(0.02, ""))
    output = Output("evaluate", "plots/predictions.csv", committed="a", here="b")
    findings = Findings(outputs=[output], equivalence=equivalence, changed_images=found)
    said = "of 1 image the committed model does not say what plots/predictions.csv says"
    assert (findings.verdict() == ("Not verified", said)) == is_other


SEEN = pd.DataFrame(  # by a model of three classes: right, right, wrong, wrong
    {
        "image": list("wxyz"),
        "actual": list("aabc"),
        "predicted": list("aacb"),
        "confidence": [0.9, 0.7, 0.5, 0.6],
        "loss": [0.105361, 0.356675, 1.203973, 1.609438],
        "split": "test",
    }
)
LAST_EPOCH = {"validation_loss": 0.9, "validation_accuracy": 0.5}


@pytest.fixture(scope="module")
def consistent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commit results of which every number follows from the predictions and curves beside it."""
    folder = tmp_path_factory.mktemp("consistent")
    git(folder, "init", "--quiet")
    expected = expected_metrics(SEEN, list("abc"), "test")
    metrics = {name: value for name, (value, _) in expected.items()}
    files = {
        "params.yaml": "threads: 2\n",
        PROVENANCE: '{"threads": "2"}',
        "metrics/evaluate.json": json.dumps(metrics | {"test_loss": SEEN["loss"].mean()}),
        "metrics/train.json": json.dumps(LAST_EPOCH),
        "plots/training.csv": "epoch,validation_loss,validation_accuracy\n1,0.8,0.25\n2,0.9,0.5\n",
        "plots/predictions.csv": SEEN.to_csv(index=False),
        "plots/per_class.csv": score_classes(SEEN, list("abc")).to_csv(index=False),
        "plots/calibration.csv": calibration_of(SEEN).to_csv(index=False),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    commit(folder, "consistent")
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("params.yaml", "2", "2 ", None),
        (PROVENANCE, "2", "4", "made with threads 4, and params.yaml has 2"),
        ("metrics/evaluate.json", '"errors": 2', '"errors": "none"', "says errors 'none', and"),
        ("metrics/evaluate.json", '"errors": 2', '"errors": NaN', "says errors 'NaN', and"),
        ("metrics/evaluate.json", '_loss": 0.8', '_loss": 0.7', "says test_loss 0.718862, and"),
        ("metrics/train.json", "0.9", "0.8", "kept: validation_loss 0.8 and 0.9, "),
        ("plots/predictions.csv", "0.7,", "nan,", "row 2, column confidence, is 'nan'; it must"),
        ("plots/predictions.csv", "0.356675", "0.4", "in row 2 loss 0.4, and what it predicts"),
        ("plots/predictions.csv", "1.609438", "0.9", "in row 4 loss 0.9, and what it predicts"),
        ("plots/predictions.csv", ",test", ",validation", "images, and plots/predictions.csv of"),
        ("plots/per_class.csv", "\na,1.0", "\na,0.9", "of plots/predictions.csv, in class a"),
        ("plots/per_class.csv", "\nb,", "\na,", "plots/per_class.csv has a class twice"),
        ("plots/calibration.csv", "0.9,1.0,1", "0.9,0.9,1", "confidence from 0.867 to 0.933"),
    ],
)  # fmt: skip
def test_what_follows_is_computed_anew(
    consistent: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    old: str,
    new: str,
    said: str | None,
) -> None:
    monkeypatch.chdir(consistent)
    edit(consistent / name, old, new)
    commit(consistent, "edited")
    try:
        found = list(contradictions(resolve("HEAD")))
    finally:
        git(consistent, "reset", "--quiet", "--hard", "HEAD~1")
    assert (said in found[0]) if said else found == []


def run_of(seed: int, apart: float = 0.0) -> dict[tuple[str, str], list[str]]:
    """Return the numbers of a run; of one that has gone some way to another seed's.

    The curve of validation is one of 1,000 images.
    """
    here, other = np.random.default_rng(0), np.random.default_rng(1)
    numbers: dict[tuple[str, str], list[str]] = {}

    def draw(file: str, name: str, low: float, high: float, size: int) -> None:
        sides = here.uniform(low, high, size), other.uniform(low, high, size)
        values = sides[seed] + apart * (sides[1] - sides[0])
        numbers[file, name] = [f"{value:.6f}" for value in values]

    draw("plots/training.csv", "validation_loss", 0.3, 0.5, 5)
    draw("plots/training.csv", "validation_accuracy", 0.8, 0.9, 5)
    draw("plots/predictions.csv", "confidence", 0.5, 1, 500)
    draw("plots/predictions.csv", "loss", 0, 2, 500)
    losses = np.array(numbers["plots/predictions.csv", "loss"], float)
    numbers["plots/predictions.csv", "actual"] = ["a"] * 500
    numbers["metrics/evaluate.json", "test_loss"] = [f"{losses.mean():.6f}"]
    numbers["metrics/evaluate.json", "test_accuracy"] = ["0.9"]  # it follows from the predictions
    return numbers


def mismatches(apart: float = 0.0, may_stop_early: bool = False, **lies: object) -> list[str]:
    """Return what is found in a run that is so far from the one made here, with lies in it."""
    committed = run_of(0, apart)
    for name, change in lies.items():
        key = next((key for key in committed if key[1] == name), ("metrics/evaluate.json", name))
        committed[key] = change(committed.get(key))
    images = {"validation_images": 1000}
    return list(Runs(committed, run_of(0), run_of(1), images, may_stop_early).mismatches())


def times(factor: float) -> Callable[[list[str]], list[str]]:
    """Return what multiplies a column."""
    return lambda values: [f"{float(value) * factor:.6f}" for value in values]


def plus(summand: float) -> Callable[[list[str]], list[str]]:
    """Return what adds to a column."""
    return lambda values: [f"{float(value) + summand:.6f}" for value in values]


@pytest.mark.parametrize("apart", [0.0, 1e-6, 0.1, 0.5, 1.0])
def test_what_rounding_moves_apart_is_no_lie(apart: float) -> None:
    assert mismatches(apart) == []


@pytest.mark.parametrize("apart", [0.0, 0.05])
@pytest.mark.parametrize(
    ("lie", "change", "said"),
    [
        ("validation_loss", times(0.3), "plots/training.csv says validation_loss of row "),
        ("validation_accuracy", plus(0.06), "plots/training.csv says validation_accuracy of row "),
        ("test_loss", times(0.7), "metrics/evaluate.json says test_loss 0."),
        ("loss", times(0.7), "plots/predictions.csv says loss of row "),
        ("actual", lambda values: [*values[:-1], "b"], "says actual of row 500 b, which made here"),
        ("loss", lambda values: None, "plots/predictions.csv has no loss, other than the one made"),
        ("f2", lambda values: ["0.99"], "metrics/evaluate.json has f2, other than the one made"),
        ("validation_loss", lambda values: values[:-1], "has 4 rows, and the one made here 5"),
    ],
)  # fmt: skip
def test_a_number_that_no_processor_makes_is_named(
    apart: float, lie: str, change: Callable[[list[str]], list[str]], said: str
) -> None:
    (found,) = mismatches(apart, **{lie: change})
    assert said in found
    if "says" in said and lie != "actual":
        here = next(values for key, values in run_of(0).items() if key[1] == lie)
        row = int(found.partition(" of row ")[2].partition(" ")[0] or 1)
        committed = change(run_of(0, apart)[next(k for k in run_of(0) if k[1] == lie)])
        assert f"{committed[row - 1]}, which made here is {here[row - 1]}" in found


def test_a_run_that_stops_early_may_have_other_epochs() -> None:
    shorter = {"validation_loss": lambda values: values[:-1]}
    assert mismatches(may_stop_early=True, **shorter) == []


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
