"""What the review takes for more than luck: its tests, asked where the truth is known."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from bench import false_alarms
from bench.false_alarms import BLOCKS, IMAGES, OWN_IMAGES, alarms, several_seeds
from review.bootstrap import resample
from review.history import Standing
from review.repeats import NOTHING, what_differs
from review.revision import Revision, resolve
from review.seeds import over_seeds_and_images, right_by_seed
from review.sentences import verdict_sentence
from review.significance import Comparison
from tests.helpers import git

REPETITIONS = 300
CERTAIN = stats.binom.ppf(0.9999, REPETITIONS, 0.05) / REPETITIONS  # more is more than 5%


@pytest.mark.slow
def test_no_test_raises_more_false_alarms_than_it_says() -> None:
    assert max(alarms(false_alarms.two_models, REPETITIONS).values()) <= CERTAIN
    for world in (BLOCKS, OWN_IMAGES):
        for seeds in (2, 5):
            shares = alarms(several_seeds(world, seeds), REPETITIONS)
            assert max(shares["same seeds"], shares["other seeds"]) <= CERTAIN
    # What the other ones are for:
    assert alarms(several_seeds(OWN_IMAGES, 10), REPETITIONS)["Welch"] > CERTAIN
    plain, corrected = alarms(false_alarms.many_settings, REPETITIONS // 3).values()
    assert corrected <= CERTAIN < plain


@pytest.mark.slow
def test_the_bootstrap_raises_no_more_false_alarms_than_it_says() -> None:
    repetitions = 60
    shares = alarms(false_alarms.three_metrics, repetitions)
    assert len(shares) == 3
    assert max(shares.values()) <= stats.binom.ppf(0.9999, repetitions, 0.05) / repetitions


def test_seeds_find_what_is_there() -> None:
    generator = np.random.default_rng(1)
    before, after = OWN_IMAGES.sides(generator, 5)
    after[:, : IMAGES // 2] = True
    result = over_seeds_and_images(before, after, same_seeds=False)
    assert result.verdict == "an improvement"
    assert result.low < after.mean() - before.mean() < result.high


def test_seeds_alone_count_where_all_images_are_alike() -> None:
    generator = np.random.default_rng(0)
    equal = 0
    for _ in range(40):
        before, after = (generator.random((4, 200)) < 0.9 for _ in range(2))
        accuracies = before.mean(axis=1), after.mean(axis=1)
        p_values = [over_seeds_and_images(before, after, same).p_value for same in (True, False)]
        expected = stats.ttest_rel(*accuracies), stats.ttest_ind(*accuracies, equal_var=False)
        equal += np.isclose(p_values, [test.pvalue for test in expected]).sum()
    # Chance alone makes images differ in half of the cases; the other half is the plain t test.
    assert 20 <= equal <= 60


def test_blocks_that_do_not_vary_are_no_blocks() -> None:
    before = np.random.default_rng(0).random((3, 100)) < 0.9
    same = over_seeds_and_images(before, before, same_seeds=True)
    assert (same.p_value, same.test) == (1.0, "t test over seeds and images")
    one = np.repeat(before[:1], 3, axis=0)
    assert over_seeds_and_images(one, one, same_seeds=True).p_value == 1.0
    assert np.isnan(over_seeds_and_images(one, ~one, same_seeds=True).p_value)


def test_seeds_are_matched_by_image() -> None:
    table = pd.DataFrame({"image": list("abcd"), "actual": list("1212"), "predicted": list("1211")})
    table["confidence"] = "0.5"
    before, after = right_by_seed([table, table[::-1]], [table.sample(frac=1, random_state=1)])
    assert before.tolist() == [[True, True, True, False]] * 2
    assert after.tolist() == [[True, True, True, False]]
    assert right_by_seed([table, table[:3]], [table]) is None
    assert right_by_seed([table[:1]], [table[:1]]) is None


def matched_predictions(images: int) -> pd.DataFrame:
    """Return predictions of two models, as text, as they are read from a file."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {"image": np.arange(images), "actual": generator.integers(10, size=images)}
    )
    for side, accuracy in (("before", 0.95), ("after", 0.96)):
        other = generator.integers(11, size=images)
        right = generator.random(images) < accuracy
        table[f"predicted_{side}"] = table["actual"].where(right, other)
        table[f"confidence_{side}"] = generator.uniform(0.8, 1, images)
        table[f"loss_{side}"] = generator.exponential(0.1, images)
    return table.astype(str)


def test_the_bootstrap_agrees_with_other_programs() -> None:
    table = matched_predictions(2000)
    f1, loss, _ = resample(table)
    assert [f1.name, loss.name] == ["macro_f1", "test_loss"]
    # A class that was predicted and does not occur has F1 0; `evaluate` counts it too.
    assert f1.after.value == pytest.approx(
        f1_score(table["actual"], table["predicted_after"], average="macro")
    )
    change = table["loss_after"].astype(float) - table["loss_before"].astype(float)
    assert loss.change.value == pytest.approx(change.mean())
    other = stats.bootstrap((change,), np.mean, method="percentile", n_resamples=2000, rng=1)
    width = loss.change.high - loss.change.low
    expected = list(other.confidence_interval)
    assert [loss.change.low, loss.change.high] == pytest.approx(expected, abs=width / 10)
    assert loss.p_value == pytest.approx(stats.ttest_1samp(change, 0).pvalue, abs=0.05)
    assert resample(table) == resample(table)


def test_the_bootstrap_leaves_out_what_it_cannot_know() -> None:
    table = matched_predictions(50).drop(columns="loss_before")
    assert [metric.name for metric in resample(table)] == ["macro_f1", "expected_calibration_error"]
    table["confidence_after"] = "high"
    assert [metric.name for metric in resample(table)] == ["macro_f1"]


@pytest.mark.slow
def test_the_bootstrap_of_ten_thousand_images_takes_less_than_five_seconds() -> None:
    table = matched_predictions(10_000)
    begin = time.process_time()
    assert len(resample(table)) == 3
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (0.98, "p = 0.020, and p = 0.280 corrected for being the 15th setting scored on these "
         "images: not distinguishable from noise."),
        (0.96, "p = 0.020, and p = 0.280 corrected for being the 15th setting scored on these "
         "images; a regression counts by the first: a regression."),
    ],
)  # fmt: skip
def test_a_search_must_pay_and_a_regression_must_be_seen(after: float, said: str) -> None:
    standing = Standing(15, 15, [float("nan")] * 13)
    corrected = standing.corrected(0.02)
    comparison = Comparison(0.97, after, -1.0, 1.0, 0.02, "a test", corrected=corrected)
    assert verdict_sentence(comparison, 1000, 1000, standing).endswith(f"a test, {said}")


def test_a_seed_a_machine_and_a_draw_are_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "metrics").mkdir()

    def made(processor: str = "A", **changes: int) -> Revision:
        params = {"seed": 42, "threads": 2, "data_seed": 42, "epochs": 5} | changes
        stage = {"cmd": "train", "params": {"params.yaml": params}}
        lock = {"schema": "2.0", "stages": {"train": stage}}
        (tmp_path / "dvc.lock").write_text(json.dumps(lock))
        (tmp_path / "metrics/provenance.json").write_text(json.dumps({"processor": processor}))
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "made")
        return resolve("HEAD")

    base = made()
    assert what_differs(base, made(seed=43)) == "seed (42 before, 43 after) alone differs"
    assert what_differs(base, made(threads=4)) == "threads (2 before, 4 after) alone differs"
    assert what_differs(base, made(data_seed=1)) == "data_seed (42 before, 1 after) alone differs"
    assert what_differs(base, made("B")) == "the place where it was trained alone differs"
    both = "seed (42 before, 43 after) and the place where it was trained differ"
    assert what_differs(base, made("B", seed=43)) == both
    assert what_differs(base, made()) == NOTHING
    assert what_differs(base, made(seed=43, epochs=6)) is None
    # A draw of the images is a try, on images of its own; a seed and a machine are not.
    assert base.setting == made(seed=43, threads=4).setting != made(data_seed=1).setting
