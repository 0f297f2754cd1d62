"""The pipeline as its users run it: dvc, in a copy of the repository, on the small data set."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import (
    ENVIRONMENT,
    command,
    commit,
    contents,
    dvc,
    git,
    hear_ctrl_c,
    stages_run,
    write_params,
)


def stages_changed(output: str) -> list[str]:
    """Return the names of the stages that a `dvc repro` ran, or restored from the run cache."""
    return re.findall(r"(?:Running stage|Stage) '([^']+)'(?=:| is cached)", output)


def results(folder: Path) -> dict[str, bytes]:
    """Return every output of the four stages, and whatever else lies beside them."""
    return {
        f"{part}/{name}": content
        for part in ("data/prepared", "models", "metrics", "plots")
        for name, content in contents(folder / part).items()
    }


@pytest.fixture
def reproduced(committed: Path) -> Path:
    """Put everything back to what was committed."""
    git(committed, "reset", "--quiet", "--hard", "main")
    git(committed, "checkout", "--quiet", "--detach")
    dvc(committed, "checkout")
    return committed


def test_only_what_changed_is_run(reproduced: Path, dataset: Path) -> None:
    assert stages_run(dvc(reproduced, "repro")) == []
    code = reproduced / "stages/evaluate.py"
    code.write_text(code.read_text() + "# a change\n")
    # What is not run changes no input of what comes after it.
    for changes, expected in (
        ({"seed": 7}, ["train", "evaluate"]),
        ({"dense_units": [8]}, ["define", "evaluate"]),
    ):
        write_params(reproduced, dataset=str(dataset), **changes)
        assert stages_run(dvc(reproduced, "repro", "--dry")) == expected
    git(reproduced, "checkout", "--quiet", "stages")
    write_params(reproduced, dataset=str(dataset), data_seed=7)
    assert stages_changed(dvc(reproduced, "repro")) == ["load", "train", "evaluate"]


def test_experiments_at_once_are_compared_and_do_not_disturb_each_other(reproduced: Path) -> None:
    runs = [
        subprocess.Popen(
            ["dvc", "exp", "run", "--temp", "--name", f"epochs-{epochs}", "-S", f"epochs={epochs}"],
            cwd=reproduced,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for epochs in (1, 3)
    ]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output
    table = list(csv.DictReader(io.StringIO(dvc(reproduced, "exp", "show", "--csv"))))
    losses = {row["Experiment"]: row["train_loss"] for row in table}
    assert set(losses) >= {"epochs-1", "epochs-3"}
    assert git(reproduced, "status", "--short") == ""
    for epochs in (1, 3):
        dvc(reproduced, "exp", "apply", f"epochs-{epochs}")
        rows = (reproduced / "plots/training.csv").read_text().splitlines()
        assert len(rows) == 1 + epochs
        changed = json.loads(dvc(reproduced, "params", "diff", "--json"))
        assert changed["params.yaml"]["epochs"] == {"old": 2, "new": epochs, "diff": epochs - 2}
        metrics = json.loads(dvc(reproduced, "metrics", "diff", "--json"))
        assert "validation_loss" in metrics["metrics/train.json"]
        git(reproduced, "reset", "--quiet", "--hard")
    assert "index.html" in dvc(reproduced, "plots", "diff", "epochs-1", "epochs-3")


def test_metrics_are_compared_in_a_clone_with_nothing_pulled(
    reproduced: Path, tmp_path: Path
) -> None:
    path = reproduced / "metrics" / "evaluate.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"errors": metrics["errors"] + 1}))
    commit(reproduced, "one more error")
    git(tmp_path, "clone", "--quiet", str(reproduced), "clone")
    difference = json.loads(dvc(tmp_path / "clone", "metrics", "diff", "HEAD~1", "HEAD", "--json"))
    assert difference["metrics/evaluate.json"]["errors"]["diff"] == 1


def test_what_ran_before_is_restored(reproduced: Path, dataset: Path) -> None:
    found = [([], results(reproduced))]  # what `first_run` ran
    for rate in (0.004, 0.003, 0.004):
        write_params(reproduced, dataset=str(dataset), learning_rate=rate)
        output = dvc(reproduced, "repro")
        found.append((stages_run(output), results(reproduced)))
    assert [ran for ran, _ in found[1:]] == [["train", "evaluate"], [], []]
    assert found[0][1] == found[2][1] != found[1][1] == found[3][1]


def test_a_mistake_is_one_line_and_changes_nothing(reproduced: Path, dataset: Path) -> None:
    for changes, line in (
        ({"epochs": 0}, "train: error: params.yaml: epochs is 0; it must be a whole number from 1"),
        ({"test_images": 9999}, "load: error: params.yaml: test_images is 9999, but test/ has 450"),
    ):
        before = results(reproduced)
        write_params(reproduced, dataset=str(dataset), **changes)
        output = dvc(reproduced, "repro", fails=True)
        assert line in output
        assert "Traceback" not in output
        assert "put back" not in output
        assert git(reproduced, "status", "--short") == " M params.yaml\n"
        assert results(reproduced) == before
        git(reproduced, "reset", "--quiet", "--hard")
        assert stages_run(dvc(reproduced, "repro")) == []


def test_a_defect_of_the_program_leaves_results_that_were_not_committed(
    reproduced: Path, dataset: Path
) -> None:
    write_params(reproduced, dataset=str(dataset), learning_rate=0.004)
    dvc(reproduced, "repro")
    before = results(reproduced)
    for name in ("train", "evaluate"):
        path = reproduced / f"stages/{name}.py"
        path.write_text(path.read_text().replace('"""Run the stage."""', "raise RuntimeError"))
        assert "RuntimeError" in dvc(reproduced, "repro", fails=True)
        assert results(reproduced) == before
        git(reproduced, "checkout", "--quiet", "stages")


# Lines of the stage itself, so that the edit comes while it runs: what they follow, what they do.
EDITS = {
    "load": ("read_params(LoadParams)", "Path('digits/notes.txt').write_text('a file')"),
    "define": ("read_params(DefineParams)", "Path('common/layers.py').open('a').write('# more')"),
    "train": (
        "read_params(TrainParams)",
        "Path('params.yaml').write_text(Path('params.yaml').read_text().replace(': 2', ': 1'))",
    ),
}


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ("load", "digits/notes.txt"),
        ("define", "common/layers.py"),
        ("train", "threads in params.yaml (it was 2, and is 1), epochs in params.yaml (it was 2"),
    ],
)
def test_what_is_edited_while_a_stage_runs_is_not_taken_for_what_made_its_results(
    reproduced: Path, dataset: Path, stage: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONSAFEPATH", "1")  # nor is a stage kept from starting
    if stage == "load":
        shutil.copytree(dataset, reproduced / "digits")
        write_params(reproduced, dataset="digits")
    before, lock = results(reproduced), (reproduced / "dvc.lock").read_text()
    code = reproduced / f"stages/{stage}.py"
    line, edit = EDITS[stage]
    assert code.read_text().count(f"{line}\n") == 1
    code.write_text(code.read_text().replace(f"{line}\n", f"{line}\n    {edit}\n"))
    output = dvc(reproduced, "repro", "--single-item", stage, fails=True)
    assert f"{stage}: error: changed while this stage ran: {named}" in output
    assert "Traceback" not in output
    assert (reproduced / "dvc.lock").read_text() == lock
    after = results(reproduced)
    # What was trained is not lost: with the earlier values the training goes on from there.
    assert (after.pop("models/checkpoint.npz", None) is not None) == (stage == "train")
    assert after == before
    git(reproduced, "clean", "--quiet", "-d", "--force", "-x", "models/checkpoint.npz", "digits")


def test_what_only_git_has_is_put_back_from_there(reproduced: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(reproduced), "clone")
    clone = tmp_path / "clone"
    before = results(clone)
    params = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(params.replace("test_images: 100", "test_images: 9999"))
    output = dvc(clone, "repro", fails=True)
    assert "load: not put back, as they are not in DVC's cache: data/prepared/train" in output
    assert results(clone) == before


@pytest.mark.parametrize(
    ("stage", "number", "target"),
    [
        ("define", signal.SIGINT, "all"),
        ("train", signal.SIGINT, "all"),
        ("train", signal.SIGKILL, "stage"),
        ("train", signal.SIGKILL, "dvc"),
    ],
)
def test_a_run_that_is_stopped_loses_no_results(
    reproduced: Path, dataset: Path, stage: str, number: int, target: str
) -> None:
    before = results(reproduced)
    changes = {"define": {"dense_units": [9]}, "train": {"epochs": 9999}}[stage]
    write_params(reproduced, dataset=str(dataset), **changes)
    sign = {"define": "Running stage 'define'", "train": "epoch 2/9999"}[stage]
    log = reproduced.parent / f"{reproduced.name}.log"
    with log.open("wb") as file:
        run = subprocess.Popen(
            ["dvc", "repro"],
            cwd=reproduced,
            env=ENVIRONMENT | {"SHELL": "/bin/sh"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        )
    while sign not in log.read_text():
        assert run.poll() is None, log.read_text()
        time.sleep(0.02)
    if stage == "define":
        time.sleep(0.5)  # TensorFlow is being imported
    [started] = psutil.Process(run.pid).children()
    if stage == "train":
        shown = json.loads(dvc(reproduced, "exp", "show", "--json"))[0]  # the workspace
        numbers = shown["data"]["metrics"]["metrics/train.json"]["data"].values()
        row = ",".join(f"{number:.6f}" for number in numbers)
        assert f",{row}\n" in (reproduced / "plots/training.csv").read_text()
    if target == "all":
        os.killpg(run.pid, number)
    else:
        os.kill(started.pid if target == "stage" else run.pid, number)
    assert run.wait() != 0
    end = time.monotonic() + 10
    while started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the stage goes on, though nobody waits for it"
        time.sleep(0.1)
    if number == signal.SIGKILL:
        assert results(reproduced)["metrics/train.json"] != before["metrics/train.json"]
        said = command(reproduced, sys.executable, "-m", "common.restore")
        assert "put back: models/mnist_cnn_model.h5, metrics/train.json" in said
    after = results(reproduced)
    assert ("models/checkpoint.npz" in after) == (stage == "train")
    after.pop("models/checkpoint.npz", None)
    assert after == before
    git(reproduced, "reset", "--quiet", "--hard")
    (reproduced / "models/checkpoint.npz").unlink(missing_ok=True)
    assert stages_run(dvc(reproduced, "repro")) == []


def test_each_picture_is_shown_once(reproduced: Path) -> None:
    shown = json.loads(dvc(reproduced, "plots", "show", "--json"))["data"]
    charts = [one["content"] for v in shown.values() for one in v if one["type"] == "vega"]
    assert sorted(chart["title"]["text"] for chart in charts) == [
        "Confusion Matrix",
        "F1 of each class",
        "Model Accuracy",
        "Model Loss",
        "Precision of each class",
        "Recall of each class",
        "Reliability (perfect where accuracy equals confidence)",
    ]
    images = sorted(name for name, v in shown.items() if v[0]["type"] == "image")
    pictures = ("accuracy", "confusion_matrix", "loss", "misclassified", "samples")
    assert images == [f"plots/{name}.png" for name in pictures]
    text = json.dumps(charts)
    for column in ("train_loss", "validation_loss", "train_accuracy", "perfect"):
        assert column in text
    for label in ("Epochs", "Loss", "Accuracy", "Confidence", "Predicted", "Actual", "Class"):
        assert json.dumps(label) in text


def test_current_asks_for_what_git_should_keep(reproduced: Path) -> None:
    words = (sys.executable, "-m", "review.current")
    assert "up to date" in command(reproduced, *words)
    lock = (reproduced / "requirements.txt").read_text()
    upgraded = re.sub(r"^(h5py|pandas)==[\d.]+", r"\1==99.0", lock, flags=re.MULTILINE)
    (reproduced / "requirements.txt").write_text(upgraded)
    said = command(reproduced, *words, fails=True)
    assert "on which the stages train, evaluate depend: run `python -m review.packages`" in said
    command(reproduced, sys.executable, "-m", "review.packages")
    changed = re.findall(r"^(\w+):", dvc(reproduced, "status"), re.MULTILINE)
    assert changed == ["train", "evaluate"]
    git(reproduced, "reset", "--quiet", "--hard")
    git(reproduced, "rm", "--quiet", "metrics/evaluate.json")
    git(reproduced, "rm", "--quiet", "--cached", "plots/predictions.csv")
    said = command(reproduced, *words, fails=True)
    assert "missing: metrics/evaluate.json, plots/predictions.csv: run `dvc repro`" in said
    git(reproduced, "reset", "--quiet", "--hard")
    (reproduced / "stages/define.py").open("a").write("# a change\n")
    assert "dvc.lock does not belong" in command(reproduced, *words, fails=True)
    git(reproduced, "reset", "--quiet", "--hard")
    (reproduced / "params.yaml").open("a").write("epoch: 10\n")
    assert "no stage reads 'epoch'; did you mean epochs?" in command(reproduced, *words, fails=True)


def test_a_merge_conflict_in_results_is_solved_as_the_readme_says(reproduced: Path) -> None:
    for name, old, new in (
        ("ours", "batch_norm: false", "batch_norm: true"),
        ("theirs", "kernel_size: 3", "kernel_size: 11"),
    ):
        git(reproduced, "checkout", "--quiet", "-B", name, "main")
        params = reproduced / "params.yaml"
        params.write_text(params.read_text().replace(old, new))
        dvc(reproduced, "repro", "define")
        commit(reproduced, name)
    git(reproduced, "checkout", "--quiet", "ours")
    assert "dvc.lock" in command(reproduced, "git", "merge", "theirs", fails=True)
    # What one of the branches made stands there whole, so that DVC can read it.
    for path in ("dvc.lock", "metrics/define.json"):
        assert (reproduced / path).read_text() == git(reproduced, "show", f"ours:{path}")
        assert f"UU {path}" in git(reproduced, "status", "--short")
    assert stages_changed(dvc(reproduced, "repro", "define")) == ["define"]
    commit(reproduced, "merged")
    assert "didn't change" in dvc(reproduced, "repro", "define")
    assert git(reproduced, "status", "--short") == ""
