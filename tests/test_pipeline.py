"""The pipeline as its users run it: dvc, in a copy of the repository, on the small data set."""

import csv
import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, commit, dvc, git, write_params


def stages_run(output: str) -> list[str]:
    """Return the names of the stages that a `dvc repro` ran."""
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.fixture(scope="module")
def committed(repository: Path) -> Path:
    """Run the pipeline once and commit what it wrote."""
    output = dvc(repository, "repro")
    assert stages_run(output) == ["load", "define", "train", "evaluate"]
    assert "Test Accuracy" in output
    assert "oneDNN" not in output
    commit(repository, "results")
    return repository


@pytest.fixture
def reproduced(committed: Path) -> Path:
    """Put everything back to what was committed."""
    git(committed, "reset", "--quiet", "--hard", "main")
    git(committed, "checkout", "--quiet", "--detach")
    dvc(committed, "checkout")
    return committed


def test_only_what_changed_is_run(reproduced: Path, dataset: Path) -> None:
    assert stages_run(dvc(reproduced, "repro")) == []
    so_far: dict[str, object] = {}
    for changes, expected in (
        ({"epochs": 1}, ["train", "evaluate"]),
        ({"dense_units": [8]}, ["define", "train", "evaluate"]),
        ({"seed": 7}, ["load", "train", "evaluate"]),
    ):
        so_far |= changes
        write_params(reproduced, dataset=str(dataset), **so_far)
        assert stages_run(dvc(reproduced, "repro")) == expected
    git(reproduced, "reset", "--quiet", "--hard")
    with (reproduced / "stages/evaluate.py").open("a") as file:
        file.write("# a change\n")
    dvc(reproduced, "checkout")
    assert stages_run(dvc(reproduced, "repro", "--dry")) == ["evaluate"]


def test_an_experiment_is_compared(reproduced: Path) -> None:
    dvc(reproduced, "exp", "run", "--name", "longer", "-S", "epochs=4")
    changed = json.loads(dvc(reproduced, "params", "diff", "--json"))
    assert changed == {"params.yaml": {"epochs": {"old": 2, "new": 4, "diff": 2}}}
    metrics = json.loads(dvc(reproduced, "metrics", "diff", "--json"))
    assert "validation_loss" in metrics["metrics/train.json"]
    assert "longer" in dvc(reproduced, "exp", "show", "--csv")
    assert "index.html" in dvc(reproduced, "plots", "diff")


def test_experiments_at_once_do_not_disturb_each_other(reproduced: Path) -> None:
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
        git(reproduced, "reset", "--quiet", "--hard")


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


def test_a_mistake_is_one_line_and_changes_nothing(reproduced: Path, dataset: Path) -> None:
    for changes, line in (
        ({"epochs": 0}, "train: error: params.yaml: epochs is 0; it must be a whole number from 1"),
        ({"test_images": 9999}, "load: error: params.yaml: test_images is 9999, but test/ has 450"),
    ):
        write_params(reproduced, dataset=str(dataset), **changes)
        output = dvc(reproduced, "repro", fails=True)
        assert line in output
        assert "Traceback" not in output
        assert git(reproduced, "status", "--short") == " M params.yaml\n"
        git(reproduced, "reset", "--quiet", "--hard")
        assert stages_run(dvc(reproduced, "repro")) == []
