"""The best experiment is the one that is applied, and the test images are looked at once."""

from pathlib import Path

import pytest
import yaml

from common.console import InputError
from search.choosing import check_recipe, choose, read_measure, recipe_of
from search.results import read_results
from tests.experiments import Experiment, start_repository, trial, write_experiments
from tests.helpers import DEFAULTS, command, dvc, git, stages_run

MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed", "best")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository without results, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    return start_repository(tmp_path)


def chosen(search: str = "", metric: str = "") -> tuple[str, str]:
    """Return the name of the best experiment, and why it is."""
    choice = choose(read_results(), search, metric, DEFAULTS)
    return choice.result.name, choice.reason


def test_a_setting_is_as_good_as_the_mean_of_its_seeds(empty: Path) -> None:
    seeds = [(1, 43, 0.95), (1, 42, 0.75), (2, 42, 0.9), (2, 43, 0.88), (3, 42, 0.99)]
    trials = [trial(n, seed, accuracy, epochs=n) for n, seed, accuracy in seeds]
    trials.append(trial(4, 42, 0.999, "pruned", epochs=4))
    winner = trial(1, 44, 1.0, epochs=1)
    winner.trailers["Role"] = "winner"
    write_experiments(empty, [*trials, winner])
    # The third was interrupted after one seed of two.
    reason = "the best of 2 settings of the search digits by validation_accuracy"
    assert chosen("digits") == ("digits-002-42", reason)
    assert chosen("digits", "errors")[0] == "digits-002-42"
    assert chosen("digits", "highest:errors")[0] == "digits-001-42"


def test_without_a_search_only_what_is_judged_on_the_same_images_counts(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"metrics/train.json": '{"validation_accuracy": 1.0}'}
    one_image = Experiment("one", 0.5, {"validation_images": 1}, files=train)
    write_experiments(empty, [one_image, trial(1, 42, 0.8, epochs=1), trial(2, 42, 0.85)])
    assert chosen()[0] == "digits-002-42"
    assert "best: 1 of 3 experiments were judged on other images" in capsys.readouterr().out
    assert chosen(metric="test_accuracy")[0] == "one"


def test_what_cannot_be_chosen_by_is_one_line(empty: Path) -> None:
    write_experiments(empty, [trial(1), trial(2, state="failed")])
    with pytest.raises(InputError, match=r"^no search named 'x' .* that have some are digits$"):
        chosen("x")
    with pytest.raises(InputError, match=r"^of 1 experiments none has the metric test_loss; they"):
        chosen("digits", "test_loss")
    with pytest.raises(InputError, match=r"METRIC=lowest:depth or METRIC=highest:depth$"):
        chosen("digits", "depth")


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("accuracy", True),
        ("loss", False),
        ("macro_f1", True),
        ("test_accuracy_low", True),
        ("multiply_adds", False),
        ("parameters", False),
        ("expected_calibration_error", False),
    ],
)
def test_the_name_of_a_metric_tells_which_end_is_better(metric: str, more: bool) -> None:
    assert read_measure(metric).more_is_better == more


def test_a_recipe_overwrites_none_and_is_a_file_of_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.choosing.FOLDER", tmp_path)
    (tmp_path / "fast.yaml").write_text("epochs: 2\n")
    params = DEFAULTS | {"seed": 7, "evaluate_on": "validation", "epochs": 9}
    assert recipe_of(DEFAULTS, params) == {"epochs": 9, "test_images": None}
    with pytest.raises(InputError, match=r"^recipes/fast\.yaml is there, with other parameters"):
        check_recipe("fast", {"epochs": 9})
    for name in ("../fast", "", ".x", "a b", "é"):
        with pytest.raises(InputError, match=r"^RECIPE is "):
            check_recipe(name, {})


def as_trial(folder: Path, name: str) -> None:
    """Let an experiment be a trial of a search, as that writes it."""
    tree = git(folder, "rev-parse", f"refs/exps/{parent(folder)}/{name}^{{tree}}").strip()
    trailers = "Search: few\nRole: trial\nTrial: 0\nState: finished\nMetric: loss\n"
    made = git(folder, "commit-tree", tree, "-p", "HEAD", "-m", f"a trial\n\n{trailers}").strip()
    git(folder, "update-ref", f"refs/exps/{parent(folder)}/{name}", made)


def parent(folder: Path) -> str:
    """Return the part of the names of experiments that tells that they started from HEAD."""
    head = git(folder, "rev-parse", "HEAD").strip()
    return f"{head[:2]}/{head[2:]}"


def test_the_best_is_applied_and_meets_the_test_images_once(committed: Path) -> None:
    changes = ("-S", "learning_rate=0.005", "-S", "evaluate_on=validation")
    dvc(committed, "exp", "run", "--name", "few-000-42", *changes)
    as_trial(committed, "few-000-42")
    output = command(committed, *MAKE, "NAME=few", fails=True)
    assert "best: error: the working tree differs from HEAD" in output
    git(committed, "reset", "--quiet", "--hard")
    dvc(committed, "checkout")

    output = command(committed, *MAKE, "NAME=few", "RECIPE=mine")
    assert "few-000-42 is the best of 1 settings of the search few by validation_loss: " in output
    assert "best:   learning_rate: 0.003 -> 0.005\n" in output
    assert stages_run(output) == ["evaluate"]
    result = output.partition("best: best-few-000-42: ")[2].splitlines()[0]
    assert result.startswith("test accuracy 0.")
    params = yaml.safe_load((committed / "params.yaml").read_text())
    assert (params["learning_rate"], params["evaluate_on"]) == (0.005, "test")
    lines = (committed / "recipes/mine.yaml").read_text().splitlines()
    assert lines[0].startswith("# few-000-42: the best of 1 settings")
    assert sorted(lines[1:]) == ["learning_rate: 0.005", "test_images: null"]

    git(committed, "reset", "--quiet", "--hard")
    output = command(committed, *MAKE, "NAME=few")
    assert stages_run(output) == []
    assert "best: best-few-000-42 ran these settings on the test images" in output
    assert result in output

    git(committed, "reset", "--quiet", "--hard")
    (committed / "LICENSE").write_text("changed since the search\n")
    git(committed, "commit", "--quiet", "--all", "--message", "later")
    output = command(committed, *MAKE, "NAME=few")
    assert "train" not in stages_run(output) and result in output
    assert (committed / "LICENSE").read_text() == "changed since the search\n"


def test_a_run_that_fails_leaves_all_as_it_was(committed: Path) -> None:
    git(committed, "reset", "--quiet", "--hard")
    dvc(committed, "checkout")
    params = yaml.safe_load((committed / "params.yaml").read_text())
    params |= {"learning_rate": -1, "evaluate_on": "validation"}
    write_experiments(committed, [Experiment("wrong", 1.0, params)])
    output = command(committed, *MAKE, fails=True)
    assert "learning_rate is -1" in output
    assert "best: all is again as it was committed\n" in output
    assert git(committed, "status", "--porcelain", "--untracked-files=no") == ""
    assert dvc(committed, "diff") == ""
