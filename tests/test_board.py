"""The results that Git holds are read, quickly and whatever they are."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from board.charts import points_of
from board.page import PAGE, page, write_page
from board.scores import sections_of
from search.results import differing, read_results, settings_of
from tests.experiments import Experiment, files_of, start_repository, trial, write_experiments
from tests.helpers import ROOT, command, commit, git, headless_browser, set_screen

HOSTILE = [
    *("</script><script>alert(1)</script>", "<img/src=x-onerror=alert(1)>"),
    *("quo\"te'$(touch,x)", "javascript;alert(1)", "<b>bold</b>&amp;<a-href='x'>"),
]
SCRIPT = "</script><script>document.title='run'</script><b>x</b>"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository without results, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    return start_repository(tmp_path)


def write(folder: Path, experiment: Experiment) -> None:
    """Write the files of an experiment into a folder."""
    for name, content in files_of(experiment).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_a_repository_without_results_has_none(empty: Path) -> None:
    assert read_results() == []


def test_every_experiment_is_read_and_each_commit_of_other_results_once(empty: Path) -> None:
    write(empty, Experiment("", 0.95))
    commit(empty, "results")
    (empty / "README.md").write_text("nothing that changes a result")
    commit(empty, "words")
    write(empty, Experiment("", 0.97, {"epochs": 9}))
    commit(empty, "better")
    git(empty, "branch", "later")
    git(empty, "reset", "--quiet", "--hard", "HEAD~1")
    write_experiments(
        empty,
        [
            Experiment("by-hand", 0.96, {"conv_filters": [[32, 32], 64]}),
            trial(0, 42, 0.98, dropout=0.3),
            trial(0, 43, 0.97, dropout=0.3),
            trial(1, 42, state="pruned", dropout=0.5),
        ],
    )
    results = {result.name: result for result in read_results()}
    # `main` is the second commit of the first results, which had no name.
    assert list(results) == [
        *("main", "later", "by-hand"),
        *("digits-000-42", "digits-000-43", "digits-001-42-pruned"),
    ]
    assert {name: result.accuracy for name, result in results.items()} == {
        **{"main": 0.95, "later": 0.97, "by-hand": 0.96},
        **{"digits-000-42": 0.98, "digits-000-43": 0.97, "digits-001-42-pruned": None},
    }
    assert results["main"].commit == git(empty, "rev-parse", "main").strip()
    assert results["by-hand"].params["conv_filters"] == [[32, 32], 64]
    assert results["by-hand"].parent == results["main"].commit
    assert results["by-hand"].trailers == {}
    assert results["by-hand"].scored == "test"
    pruned = results["digits-001-42-pruned"]
    assert (pruned.state, pruned.scored, pruned.trailers["Trial"]) == ("pruned", "", "1")
    assert pruned.curve is not None and pruned.metrics["validation_accuracy"] == 0.9
    assert differing(list(results.values())) == [
        *("conv_filters", "dropout", "seed", "epochs", "evaluate_on")
    ]
    seeds = [[result.seed for result in setting] for setting in settings_of([*results.values()])]
    assert seeds == [[42], [42], [42], [42, 43], [42]]


def test_what_cannot_be_read_is_missing_and_stops_nothing(empty: Path) -> None:
    broken = {
        "params.yaml": "epochs: [1,",
        "metrics/evaluate.json": "{",
        "metrics/train.json": '{"validation_loss": NaN, "validation_accuracy": 1.5}',
        "plots/training.csv": "epoch,\udcff\n1,2\n",
    }
    write_experiments(
        empty,
        [Experiment(name, files={name: content}) for name, content in broken.items()],
    )
    params, evaluate, train, curve = read_results()
    assert (params.params, params.accuracy) == ({}, 0.9)
    assert (evaluate.accuracy, evaluate.scored) == (None, "")
    assert (train.metrics.keys(), train.accuracy) == ({"test_loss", "test_accuracy", "errors"}, 0.9)
    assert curve.curve is None and curve.accuracy == 0.9


def test_settings_are_compared_with_the_best_on_their_images(empty: Path) -> None:
    seeds = [
        trial(n, seed, 0.45 + n / 50 + seed / 100, dropout=n / 10)
        for n in (0, 4)
        for seed in (42, 43)
    ]
    others = [Experiment("by-hand", 0.5), trial(3, 42, 0.95, dropout=0.3)]
    others.append(trial(2, state="pruned", epochs=9))
    write_experiments(empty, [*seeds, *others])
    validation, test = sections_of(read_results())
    told = {setting.results[0].name: setting.standing for setting in validation.settings}
    assert told == {
        "digits-004-42": "the best",
        "digits-003-42": "cannot be told from the best",
        "digits-000-42": "worse",
        "digits-002-42-pruned": "not scored",
    }
    best = validation.settings[0]
    assert [result.seed for result in best.finished] == [42, 43]
    assert best.interval is not None and best.interval[0] < (best.accuracy or 0) < best.interval[1]
    assert [setting.standing for setting in test.settings] == ["the best"]


def test_without_results_the_page_says_what_to_do(empty: Path) -> None:
    write_page(read_results())
    text = PAGE.read_text()
    assert "This repository has no results yet" in text
    assert len(text) < 100_000


def test_runs_with_fresh_seeds_are_a_row_of_their_own(empty: Path) -> None:
    again = trial(3, 50, 0.91, dropout=0.2)
    again.trailers["Role"] = "winner"
    write_experiments(empty, [trial(3, 42, 0.99, dropout=0.2), again])
    (section,) = sections_of(read_results())
    assert [setting.accuracy for setting in section.settings] == [0.99, 0.91]


def test_threads_are_no_setting(empty: Path) -> None:
    write_experiments(empty, [trial(1, 42, 0.9), trial(2, 42, 0.97, threads=4)])
    (section,) = sections_of(read_results())
    assert [setting.accuracy for setting in section.settings] == [0.9]  # not the luckier one


def test_hostile_names_are_texts(empty: Path) -> None:
    names = [Experiment(name, 0.9, {"epochs": n + 1}) for n, name in enumerate(HOSTILE)]
    texts = [Experiment("texts", 0.9, {"dataset": "<script>alert(1)</script>"})]
    write_experiments(empty, [*names, *texts])
    text = page(read_results())
    assert "<script>alert" not in text and "<img" not in text.partition('id="specs"')[0]
    # A name that means something to the shell or to make is not in a command.
    commands = re.findall(r'type="checkbox" value="([^"]*)"', text)
    assert all(re.fullmatch(r"[0-9a-f]{40}|texts", command) for command in commands)
    assert len(commands) == 6
    specs = text.partition('id="specs">')[2].partition("</script>")[0]
    assert not re.search(r"\\u003c(?!br|/?extra)", specs), "Plotly would see markup"


def test_a_long_curve_is_thinned_to_its_last_epoch(empty: Path) -> None:
    lines = [f"{epoch},1,1,{epoch},1" for epoch in range(1, 3334)]
    head = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy"
    write_experiments(
        empty, [Experiment("long", files={"plots/training.csv": "\n".join([head, *lines])})]
    )
    (result,) = read_results()
    points = points_of(result, "loss")
    assert 50 < len(points) <= 102 and points[0] == (1, 1.0) and points[-1] == (3333, 3333.0)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver on this machine")
def test_hundreds_of_experiments_are_looked_at_offline(empty: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    trials = [
        trial(n, 42, 0.8 + n % 97 / 500, "pruned" if n % 9 == 5 else "finished", dropout=n / 1000)
        for n in range(500)
    ]
    hostile = trial(501, 42, 0.95, optimizer=SCRIPT, classes=[SCRIPT])
    write_experiments(empty, [*trials, hostile])
    (empty / ".dvc").mkdir(exist_ok=True)
    words = (sys.executable, "-m", "board")
    output = command(empty, "env", f"PYTHONPATH={ROOT}", *words)
    assert output == f"board: 501 results, of which 501 are experiments, in {PAGE}\n"
    assert (empty / PAGE).stat().st_size < 10_000_000
    with headless_browser() as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
        for width in (1280, 390):
            set_screen(browser, width)
            browser.get((empty / PAGE).as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for figure in browser.find_elements(By.CSS_SELECTOR, "figure:has(.drawn)"):
            browser.execute_script("arguments[0].scrollIntoView()", figure)
            WebDriverWait(browser, 60).until(
                lambda _, f=figure: f.find_elements(By.CSS_SELECTOR, ".main-svg .trace, .bars path")
            )
        rows = "return [...document.querySelectorAll('.settings tbody')].filter(b => !b.hidden)"
        names = f"{rows}.map(b => b.querySelector('th').textContent)"
        button = browser.find_element(By.XPATH, "//th/button[text()='errors']")
        for order in ("ascending", "descending"):
            button.send_keys(Keys.ENTER)
            heading = button.find_element(By.XPATH, "..")
            assert heading.get_attribute("aria-sort") == order
            cell = f"{rows}.map(b => b.rows[0].cells[7].textContent).filter(t => t !== '-')"
            errors = [int(text) for text in browser.execute_script(cell)]
            assert errors == sorted(errors, reverse=order == "descending")
        browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("pruned")
        assert len(browser.execute_script(names)) == 55
        browser.find_element(By.CSS_SELECTOR, "input[type=search]").clear()
        browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("digits-00")
        boxes = browser.find_elements(By.CSS_SELECTOR, "tbody:not([hidden]) input[type=checkbox]")
        chosen = [box.get_attribute("value") for box in boxes[:2]]
        for box in boxes[:2]:
            box.send_keys(Keys.SPACE)
        said = browser.find_element(By.CSS_SELECTOR, "#chosen code").text
        assert said == f"make review BASE={chosen[0]} REV={chosen[1]}"
        assert browser.title == "Board: 501 results"
        assert SCRIPT in browser.execute_script("return document.body.textContent")
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
