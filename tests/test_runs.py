"""What starts runs: make recipe, make seeds, make queue, make cluster."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from common.console import InputError
from common.processors import usable_processors
from runs.commands import brought_along, whole_number
from runs.recipe import RECIPES, read_recipe
from tests.experiments import start_repository
from tests.forks import reproduce
from tests.helpers import ENVIRONMENT, ROOT, command, commit, dvc, git, write_params

MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed")
SLOW = ("dvc", "numpy", "optuna", "pandas", "tensorflow")
# Runs a program, and says which slow packages it has imported by then.
RUN_AND_TELL = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:
    print([name for name in {SLOW} if name in sys.modules])
"""
SEARCHED = ["space", "trials", "name", "seeds", "fresh", "jobs", "metric", "sampler", "storage"]


def make(folder: Path, *words: str, fails: bool = False) -> str:
    """Run a target of the Makefile."""
    return command(folder, *MAKE, *words, fails=fails)


@pytest.fixture(scope="module")
def baseline(committed: Path, dataset: Path) -> Path:
    """Run and commit two recipes, and a data set in a folder that Git ignores."""
    for path in (committed / "recipes").glob("*.yaml"):
        path.unlink()
    (committed / "recipes/quick.yaml").write_text("epochs: 1\n")
    (committed / "recipes/slim.yaml").write_text("conv_filters: [4]\n")
    params = committed / "params.yaml"
    text = params.read_text().replace(str(dataset), "own").replace("epochs: 2", "epochs: 2  # few")
    params.write_text(text)
    shutil.copytree(dataset, committed / "own")
    with (committed / ".gitignore").open("a") as file:
        file.write("/own/\n")
    reproduce(committed)
    commit(committed, "baseline")
    return committed


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    """Start from what is committed."""
    if "baseline" in request.fixturenames:
        git(request.getfixturevalue("baseline"), "reset", "--quiet", "--hard")


def experiments(folder: Path) -> dict[str, str]:
    """Return the commits of the experiments by name."""
    lines = git(folder, "for-each-ref", "refs/exps/??/*/*").splitlines()
    return {line.split("/", 4)[4]: line.split()[0] for line in lines}


def params_of(folder: Path, name: str) -> dict[str, object]:
    """Return the parameters that an experiment was run with."""
    return yaml.safe_load(git(folder, "show", f"{experiments(folder)[name]}:params.yaml"))


def test_a_recipe_starts_from_the_committed_parameters(baseline: Path) -> None:
    params = baseline / "params.yaml"
    make(baseline, "recipe", "NAME=quick")
    assert "epochs: 1  # few" in params.read_text()
    make(baseline, "recipe", "NAME=slim")
    committed = yaml.safe_load(git(baseline, "show", "HEAD:params.yaml"))
    assert params_of(baseline, "quick-42") == committed | {"epochs": 1}
    assert params_of(baseline, "slim-42") == committed | {"conv_filters": [4]}
    assert "epochs: 2  # few" in params.read_text()

    before = params.read_bytes()  # those of slim-42, which nobody edited
    make(baseline, "recipe", "NAME=quick", "SET=train_images=-1", fails=True)
    assert params.read_bytes() == before


def test_a_recipe_does_not_overwrite_parameters_that_nothing_else_holds(baseline: Path) -> None:
    params = baseline / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2 ", "epochs: 9 "))
    before = params.read_bytes()
    output = make(baseline, "recipe", "NAME=quick", fails=True)
    line = (
        "recipe: error: params.yaml differs from the committed one in epochs, and a recipe starts"
    )
    assert output.startswith(line)
    assert params.read_bytes() == before


def test_the_name_of_an_experiment_tells_the_change(baseline: Path) -> None:
    words = ("recipe", "NAME=quick", "SET=label_smoothing=0.1 conv_filters='[4, 4]'")
    make(baseline, *words)
    name = "quick-42-label_smoothing-0.1-conv_filters-4-4"
    assert params_of(baseline, name)["conv_filters"] == [4, 4]
    make(baseline, *words)  # exactly the same
    found = experiments(baseline)
    assert git(baseline, "diff", found[name], found[f"{name}-2"]) == ""


def test_without_a_name_for_git_the_second_recipe_says_so(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [key for key in ENVIRONMENT if key.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delitem(ENVIRONMENT, key)
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_NOSYSTEM", "1")
    (baseline / "LICENSE").write_text("changed\n")
    output = make(baseline, "recipe", "NAME=quick", fails=True)
    assert output.startswith("recipe: error: Git does not know your name")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["recipe"], "recipe: error: NAME is not set; it must be one of quick, slim\n"),
        (["recipe", "NAME=a b'\"c"], "recipe: error: NAME is 'a b\\'\"c'; it must be one of"),
        (["recipe", "NAME=--help"], "recipe: error: NAME is '--help'; it must be one of"),
        (["recipe", "NAME=quick", "SEED=x"], "recipe: error: SEED is 'x'; it must be a whole"),
        (["recipe", "NAME=quick", "SET=epochs"], "recipe: error: SET: 'epochs' must be KEY=VALUE"),
        (["recipe", "NAME=quick", "SET=epoch=3"], "recipe: error: SET: 'epoch=3' must be"),
        (["recipe", "NAME=quick", "SET=epochs=1,2"], "recipe: error: SET: 'epochs=1,2' must be"),
        (["recipe", "NAME=quick", "SET=dataset='a b"], 'recipe: error: SET is "dataset=\'a b"'),
        (["seeds", "N=1"], "seeds: error: N is '1'; it must be a whole number, 2 or more\n"),
        (["seeds", "N="], "seeds: error: N is ''; it must be a whole number, 2 or more\n"),
        (["queue", "JOBS=0"], "queue: error: JOBS is '0'; it must be a whole number, 1 or more\n"),
        (["cluster", "WORKERS=-1"], "cluster: error: WORKERS is '-1'; it must be a whole number"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line(
    baseline: Path, words: list[str], line: str
) -> None:
    output = make(baseline, *words, fails=True)
    assert output.startswith(line)
    lines = [text for text in output.splitlines() if not text.startswith("make: ***")]
    assert len(lines) == 1
    assert git(baseline, "status", "--porcelain") == ""


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1.0", "1e1", "٣", " 1", "9", "1" * 5000])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    assert whole_number("JOBS", "8", 1, 8) == 8
    with pytest.raises(InputError, match=r"^JOBS is .*; it must be a whole number, 1 to 8$"):
        whole_number("JOBS", text, 1, 8)


@pytest.mark.parametrize("text", ["- epochs\n", "epochs: [1\n", "epochs"])
def test_a_recipe_that_is_no_mapping_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.recipe.FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^recipes/mine\.yaml (must be a mapping|is not YAML)"):
        read_recipe("mine")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("../images", "; give its absolute path, or `dvc add`"),
        ("nowhere/in/git/images.zip", "; give its absolute path, or `dvc add`"),
        ("nowhere.zip", "which does not exist$"),
        ("/nowhere/images.zip", "which does not exist$"),
    ],
)
def test_a_data_set_that_an_experiment_would_not_find_is_one_line(dataset: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"^dataset is '{dataset}', .*{said}"):
        brought_along(dataset)


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (
            "seeds",
            ["runs.seeds", "2"],
            "the working tree differs from HEAD in dvc.yaml, params.yaml;",
        ),
        ("best", ["search.best"], "the working tree differs from HEAD in dvc.yaml, params.yaml;"),
        (
            "search",
            ["search", *(f"--{name}=1" for name in SEARCHED)],
            "the working tree differs from HEAD in dvc.yaml, params.yaml;",
        ),
        (
            "recipe",
            ["runs.recipe", RECIPES[0], "42"],
            "params.yaml differs from the committed one in",
        ),
    ],
)
def test_what_differs_from_the_commit_is_named_before_what_takes_seconds_is_imported(
    tmp_path: Path, program: str, arguments: list[str], said: str
) -> None:
    write_params(tmp_path)
    start_repository(tmp_path)
    (tmp_path / ".dvc").mkdir()
    write_params(tmp_path, epochs=77)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    git(tmp_path, "add", "dvc.yaml")  # as DVC does with what it writes
    (tmp_path / "not of Git").touch()
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TELL, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "[]\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{program}: error: {said}")


def processes(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder)
    ]


def wait_until_training(folder: Path) -> psutil.Process:
    """Wait until a worker of the queue has got as far as to run `train`; return the process."""
    deadline = time.monotonic() + 120
    while True:
        for process in processes(folder):
            if "stages.train" in (process.info["cmdline"] or []):
                return process
        assert time.monotonic() < deadline, dvc(folder, "queue", "status")
        time.sleep(0.1)


def cut_power(folder: Path) -> None:
    """Kill all that works in a folder, at once."""
    found = processes(folder)
    assert found
    for process in found:
        process.suspend()  # lest one notes how another ended
    for process in found:
        process.kill()
    psutil.wait_procs(found)


def test_seeds_go_on_after_a_power_cut(baseline: Path) -> None:
    words = (*MAKE, "seeds", "N=3")
    first = subprocess.Popen(
        words, cwd=baseline, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    wait_until_training(baseline)
    cut_power(baseline)
    first.wait()
    assert "Running" in dvc(baseline, "queue", "status")
    output = command(baseline, *words)
    head = git(baseline, "rev-parse", "HEAD")[:7]
    found = {name: one for name, one in experiments(baseline).items() if name.startswith("seed-")}
    assert found.keys() == {f"seed-43-{head}", f"seed-44-{head}"}
    accuracies = [
        json.loads(git(baseline, "show", f"{rev}:metrics/evaluate.json"))["test_accuracy"]
        for rev in ("HEAD", *found.values())
    ]
    assert f"seeds: 3: mean {np.mean(accuracies):.2%}" in output
    assert "running" not in command(baseline, *words)

    sides = ("--base", "HEAD", "--rev", f"seed-43-{head}")  # an experiment: the same seeds
    command(baseline, sys.executable, "-m", "review", *sides)
    markdown = (baseline / "review/report.md").read_text()
    assert markdown.startswith(
        "# One setting, no verdict: seed (42 before, 43 after) alone differs"
    )
    mean = f"mean accuracy {np.mean(accuracies):.2%}"
    assert f"Over the seeds 42, 43, 44 of this setting: {mean}" in markdown


def test_the_queue_goes_on_after_a_power_cut(baseline: Path) -> None:
    if processes(baseline):
        cut_power(baseline)  # a worker of the last test would take the experiment at once
    copied = ("--copy-paths", "own")
    dvc(baseline, "exp", "run", "--queue", *copied, "--name", "queued", "-S", "epochs=40")
    cores = usable_processors()
    half = max(1, cores // 2)
    assert f"queue: started 1; each has {half} of " in make(baseline, "queue", "JOBS=2")
    training = wait_until_training(baseline)
    if hasattr(training, "cpu_affinity"):  # macOS has none
        assert len(training.cpu_affinity()) == half
    assert "queued" not in make(baseline, "queue")  # its worker lives
    cut_power(baseline)
    assert "queue: queued is run again; its worker had been killed\n" in make(baseline, "queue")
    deadline = time.monotonic() + 120
    while "queued" not in experiments(baseline):
        assert time.monotonic() < deadline, dvc(baseline, "queue", "status")
        time.sleep(0.5)
    assert params_of(baseline, "queued")["epochs"] == 40
    dvc(baseline, "exp", "apply", "queued")
    lock = (baseline / "dvc.lock").read_bytes()
    dvc(baseline, "repro", "--force", "--single-item", "train")  # on all cores, not on a share
    assert (baseline / "dvc.lock").read_bytes() == lock
    git(baseline, "reset", "--quiet", "--hard")
