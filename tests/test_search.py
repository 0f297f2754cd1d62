"""A search: what it proposes, how it goes on after kills, and what it refuses."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from common.console import InputError
from review.significance import Comparison
from search.closing import beyond_luck, sentence
from search.space import Space, read_space
from search.study import Ended, Settings, Study
from tests.helpers import COMMITTED, ENVIRONMENT, ROOT, command, commit, git

MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed", "search")
SPACE = """
epochs: [2, 3]
learning_rate: {low: 0.0005, high: 0.02, log: true}
kernel_size: [3, 15]  # too large for two convolutions
conv_filters: [[8], [8, 8]]
"""
RATE = Space({"epochs": 8}, {"learning_rate": FloatDistribution(0.0005, 0.02, log=True)})
KILLS = 2
TRIALS = 3


def space_file(folder: Path, text: str = SPACE) -> Path:
    """Write a space; return its file."""
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def settings_of(path: Path, **changes: object) -> Settings:
    """Return the settings of a search for a study without a repository."""
    own = {"metric": "accuracy", "sampler": "tpe", "seeds": 1, "pipeline": {"dvc.lock": "1"}}
    return Settings(path.read_text(), **(own | changes))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "spaces").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_space_of_the_repository_can_be_searched(path: Path) -> None:
    assert read_space(path, COMMITTED).distributions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: [1", "is not YAML: line 1"),
        ("- epochs", "must be a mapping of `parameter: values` lines"),
        ("epoch: [1, 2]", "epoch is no parameter of params.yaml"),
        ("seed: [1, 2]", "seed is not searched"),
        ("epochs: 3", "epochs is 3; it must be a list of choices, or a range such as {low"),
        ("epochs: []", "epochs is []; it must be a list of choices"),
        ("epochs: [3, 3]", "epochs is [3, 3]; the choices must differ"),
        ("epochs: [3]", "leaves nothing to search"),
        ("epochs: {low: 3, high: 2}", "low must be below high"),
        ("dropout: {low: 0, high: 0.5, log: true}", "above 0 where log is true"),
        ("dropout: {low: 0, hihg: 0.5}", "it must be a list of choices, or a range"),
        ("train_images: [100, 200]", "trials on different images cannot be compared"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_space(space_file(tmp_path, text), COMMITTED)
    assert said in str(error.value)
    assert "space.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_values_outside_of_the_limits_of_their_parameters_are_a_line_each(tmp_path: Path) -> None:
    text = "epochs: [1, 0]\ndropout: {low: 0.0, high: 1.0}\noptimizer: [adam, adamw]\n"
    with pytest.raises(InputError) as error:
        read_space(space_file(tmp_path, text), COMMITTED)
    keys = [line.split(": ")[1].split()[0] for line in str(error.value).splitlines()]
    assert sorted(keys) == ["dropout", "epochs", "optimizer"]


@pytest.mark.slow
def test_a_space_with_which_no_trial_could_run_is_said_before_the_first(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "images" / name / f"{number}.png").touch()
    params = COMMITTED | {"dataset": str(tmp_path / "images"), "validation_images": 2}
    params |= {"train_images": None, "test_images": None, "image_size": 16}
    text = "validation_images: [10000]\nconv_filters: [[8, 8, 8], [8, 8, 8, 8]]\n"
    with pytest.raises(InputError) as error:
        read_space(space_file(tmp_path, text), params)
    network, images = str(error.value).splitlines()
    assert "space.yaml: conv_filters is [8, 8, 8, 8]; its item 3, with kernel_size 3" in network
    assert "space.yaml: validation_images is 10000, but train/ has 16; " in images
    assert images.endswith(
        "; validation_images: 1, train_images: null and test_images: null would fit"
    )


def run_study(study: Study, trials: int) -> dict[int, Ended]:
    """Let a study propose; the accuracy is the better, the nearer the rate is to 0.003."""
    ended = {}
    while trial := study.next_trial(trials):
        values = study.space.values_of(trial.params)
        score = 1 / (1 + abs(values["learning_rate"] - 0.003) * 100)
        curve = [score * epoch / 9 for epoch in range(1, 9)]
        epoch = study.stop_after(trial, curve)
        state = "pruned" if epoch else "finished"
        value = None if epoch else score
        study.end(trial, state, value)
        ended[trial.number] = Ended(state, values, value, curve[:epoch])
    return ended


def told_of(study: Study) -> list[tuple]:
    """Return what a study knows of each trial, but for times."""
    return [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study.trials()]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_is_made_again_from_what_its_trials_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path, space = space_file(tmp_path), RATE
    settings = settings_of(path, sampler=sampler)
    study = Study("whole", settings, space, 1, "")
    ended = run_study(study, 25)
    states = {trial.state for trial in ended.values()}
    assert states == {"finished", "pruned"}
    rebuilt = Study("again", settings, space, 1, "")
    lost = {number: trial for number, trial in ended.items() if number != 17}
    rebuilt.rebuild({number: trial for number, trial in lost.items() if number < 20})
    assert run_study(rebuilt, 25).keys() == {17, *range(20, 25)}
    assert told_of(rebuilt) == told_of(study)
    rates = [trial.params["learning_rate"] for trial in study.trials()]
    assert len(set(rates)) == 25


def test_a_grid_ends_when_everything_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choices = {"epochs": ["1", "2", "3"], "learning_rate": ["0.001", "0.01"]}
    space = Space({}, {key: CategoricalDistribution(values) for key, values in choices.items()})
    settings = settings_of(space_file(tmp_path), sampler="grid")
    ended = run_study(Study("grid", settings, space, 1, ""), 100)
    pairs = {(trial.values["epochs"], trial.values["learning_rate"]) for trial in ended.values()}
    assert len(ended) == len(pairs) == 6


def test_a_search_does_not_go_on_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, space = space_file(tmp_path), RATE
    study = Study("one", settings_of(path), space, 1, "")
    with pytest.raises(InputError, match="another `make search` with NAME=one runs"):
        Study("one", settings_of(path), space, 1, "")
    del study
    with pytest.raises(InputError, match=r"begun with another metric and another dvc\.lock: go on"):
        Study("one", settings_of(path, metric="loss", pipeline={"dvc.lock": "2"}), space, 1, "")


def test_few_images_of_which_nearly_all_are_newly_right_are_compared() -> None:
    default = np.zeros((5, 12), bool)
    winner = np.ones((5, 12), bool)
    default[:, 0] = True  # what one does that gives all images one class
    result = beyond_luck(default, winner, 2)
    assert result.verdict == "an improvement" and 0 < result.p_value < 1e-9
    one = beyond_luck(default[:, 1:2], winner[:, 1:2], 2)
    assert one.verdict == "no test can tell it from noise"
    assert "no test can tell it from luck" in sentence(1, {}, {"finished": 2}, one, 5)


@pytest.mark.parametrize(
    ("p_value", "said"),
    [
        (0.03, "p = 0.030, both allow for the choice among 30), which is more than the luck"),
        (0.06, "p = 0.060, both allow for the choice among 30), which is not more than the luck"),
    ],
)
def test_the_best_of_many_must_be_better_than_lucky(p_value: float, said: str) -> None:
    result = Comparison(0.97, 0.98, 0.005, 0.015, p_value, "t test")
    text = sentence(7, {"epochs": 15}, {"finished": 28, "pruned": 2}, result, 5)
    assert text.startswith("the best of 30 trials (28 finished, 2 pruned) is 7, epochs=15: 2.00%")
    assert said in text


def test_the_best_of_equally_good_settings_is_seldom_called_better() -> None:
    random, trials, seeds, images = np.random.default_rng(7), 20, 5, 500
    alarms = 0
    for _ in range(200):
        # How easy an image is, for all settings, for each of them, and for each training.
        easy = 2.5 + 2 * random.normal(size=images)
        by_setting = easy + random.normal(size=(trials + 1, images))
        right = by_setting[:, None] + random.logistic(size=(trials + 1, seeds + 1, images)) > 0
        best = 1 + right[1:, 0].mean(axis=1).argmax()
        result = beyond_luck(right[0, 1:], right[best, 1:], trials)
        alarms += result.verdict == "an improvement"
    assert alarms <= 18  # of 200, 1 in 20 is 10; more than 18 come once in a hundred times


@pytest.fixture(scope="module")
def start(committed: Path) -> Path:
    """Commit a space."""
    space_file(committed)
    commit(committed, "space")
    return committed


def search(folder: Path, *words: str, fails: bool = False) -> str:
    """Run `make search` to its end."""
    options = ("SPACE=space.yaml", f"TRIALS={TRIALS}", "FRESH=0", *words)
    return command(folder, *MAKE, *options, fails=fails)


def found(folder: Path) -> dict[str, str]:
    """Return what each experiment of a search holds: parameters, metrics, and the message."""
    lines = git(folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/??/*/*")
    return {
        line.split("/")[-1]: git(folder, "show", "--no-patch", "--format=%B", line.split()[0])
        + git(folder, "ls-tree", "-r", line.split()[0], "params.yaml", "metrics", "plots")
        for line in lines.splitlines()
    }


def started_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    processes = psutil.process_iter(["cwd"])
    return [p for p in processes if p.info["cwd"] and Path(p.info["cwd"]).is_relative_to(folder)]


def test_a_killed_search_finds_what_an_undisturbed_one_finds(start: Path, tmp_path: Path) -> None:
    disturbed = shutil.copytree(start, tmp_path / "disturbed", symlinks=True)
    output = search(start)
    assert len(found(start)) == TRIALS
    assert f"the best of {TRIALS} trials" in output
    assert "with FRESH=0, nothing tells" in output

    choice = np.random.default_rng(2)
    words = (*MAKE, "SPACE=space.yaml", f"TRIALS={TRIALS}", "FRESH=0")
    for _ in range(KILLS):
        process = subprocess.Popen(
            words,
            cwd=disturbed,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        time.sleep(choice.uniform(2, 15))
        ending = choice.choice([signal.SIGKILL, signal.SIGINT])
        os.killpg(process.pid, int(ending))  # of make and the search; each trial has its own group
        process.wait()
        deadline = time.monotonic() + 20
        while left := started_in(disturbed):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        for git_folder in disturbed.glob(".dvc/tmp/search/*/.git"):
            # As if Git took the file for unchanged, as it does where size and second are the same,
            # and as if it had been killed.
            lock = git_folder / "index.lock"
            if (git_folder / "index").exists() and not lock.exists():
                unchanged = ("update-index", "--assume-unchanged", "params.yaml")
                git(git_folder.parent, *unchanged)
                lock.touch()
    (disturbed / ".dvc/tmp/search/space.db").unlink(missing_ok=True)
    assert search(disturbed).splitlines()[-1] == output.splitlines()[-1]
    assert found(disturbed) == found(start)
    folders = [path for path in (disturbed / ".dvc/tmp/search").iterdir() if path.is_dir()]
    assert not folders
    assert git(disturbed, "status", "--porcelain") == ""


def test_what_cannot_be_searched_is_one_line_and_runs_nothing(start: Path) -> None:
    for word, said in {
        "METRIC=f1": "METRIC is 'f1'; it must be one of accuracy, loss",
        "SAMPLER=grid": "SAMPLER=grid needs a list of choices for each parameter",
        "NAME=a-b": "NAME is 'a-b'; the name of a search must be of letters",
        "FRESH=1": "FRESH is 1; it must be 0, or 2 or more",
        "SPACE=nowhere.yaml": "SPACE is 'nowhere.yaml', which cannot be read",
        "STORAGE=mysql://me:secret@host/db": "STORAGE must be the address of a PostgreSQL",
    }.items():
        output = search(start, word, fails=True)
        assert f"search: error: {said}" in output
        assert "secret" not in output
        assert "Traceback" not in output
