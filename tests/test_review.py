"""The review of a revision, on a repository with a real history of three commits."""

import io
import json
import os
import re
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from board.scores import scored_of
from common.console import InputError
from review.base import main_branch
from review.current import unmade_results
from review.history import standing
from review.predictions import PREDICTIONS, fault_of
from review.rendering import COMMENT_LIMIT, Limits, comment, render
from review.report import compare, compare_scores
from review.revision import resolve
from review.sentences import seeds_sentence
from review.significance import over_seeds, paired, unpaired
from review.tables import MetricChange, ParameterChange
from tests.forks import reproduce
from tests.helpers import (
    ROOT,
    command,
    commit,
    git,
    headless_browser,
    set_screen,
    write_params,
)

SETTINGS = {
    "baseline": {"train_images": 90, "epochs": 1},
    "better": {"train_images": 600, "epochs": 4},
    "noise": {"train_images": 600, "epochs": 4, "learning_rate": 0.003001},
}
NO_REGRESSION = "--fail-on=regression"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def history(committed: Path, dataset: Path) -> Path:
    """Run and commit three settings, each tagged with its name."""
    for name, changes in SETTINGS.items():
        write_params(committed, dataset=str(dataset), **changes)
        reproduce(committed)
        commit(committed, name)
        git(committed, "tag", name)
    return committed


def review(folder: Path, base: str, rev: str, *options: str, fails: bool = False) -> str:
    """Run the review as its make target does."""
    words = ["--base", base, "--rev", rev, *options]
    return command(folder, sys.executable, "-m", "review", *words, fails=fails)


def reports(folder: Path) -> tuple[str, str]:
    """Return both reports; the comment fits into a pull request."""
    markdown = (folder / "review/report.md").read_text()
    assert len(markdown) < COMMENT_LIMIT
    return markdown, (folder / "review/report.html").read_text()


def predictions(folder: Path, revision: str) -> pd.DataFrame:
    """Return what a revision's model said of each test image, as committed."""
    text = git(folder, "show", f"{revision}:plots/predictions.csv")
    return pd.read_csv(io.StringIO(text), dtype=str)


def changed(folder: Path, name: str, **files: object) -> None:
    """Commit, on top of `better`, other contents of files, under a tag."""
    git(folder, "checkout", "--quiet", "--force", "--detach", "better")
    for path, content in files.items():
        target = folder / path
        target.unlink() if content is None else target.write_text(content)
    commit(folder, name)
    git(folder, "tag", "--force", name)
    git(folder, "checkout", "--quiet", "--force", "main")


@pytest.fixture(scope="module")
def improved(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Review `better` against `baseline`, which is no regression; copy the reports to a folder."""
    folder = tmp_path_factory.mktemp("improved")
    before = set(git(history, "status", "--short", "--ignored").splitlines())
    review(history, "baseline", "better", NO_REGRESSION)
    after = set(git(history, "status", "--short", "--ignored").splitlines())
    written = {line for line in after - before if "__pycache__" not in line}
    assert written <= {"!! review/report.html", "!! review/report.md"}
    shutil.copytree(history / "review", folder / "review")
    return folder


def check_sentence(history: Path, base: str, rev: str, sentence: str, verdict: str) -> None:
    """Compare the numbers of a sentence with those of scipy, called directly."""
    tables = [predictions(history, side).set_index("image") for side in (base, rev)]
    right = [(t["actual"] == t["predicted"]).reindex(tables[0].index) for t in tables]
    fixed, broken = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    p = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1
    assert f"{right[0].mean():.2%} to {right[1].mean():.2%}" in sentence
    assert f"{fixed} images newly right, {broken} newly wrong" in sentence
    if fixed + broken:
        after, before = (side.astype(int) for side in right[::-1])
        low, high = stats.ttest_rel(after, before).confidence_interval()
        assert f" points, 95% interval {100 * low:+.1f} to {100 * high:+.1f})" in sentence
    assert ("p < 0.001" if p < 0.001 else f"p = {p:.3f}") in sentence
    assert re.search(r", and p [<=] [01]\.\d{3} corrected for being (the|one of) ", sentence)
    assert sentence.endswith(f": {verdict}.")


def test_an_improvement_is_told_from_noise(history: Path, improved: Path) -> None:
    sentence = reports(improved)[0].splitlines()[0]
    assert sentence.startswith("# Better: ")
    check_sentence(history, "baseline", "better", sentence, "an improvement")
    review(history, "better", "noise", NO_REGRESSION)
    sentence = reports(history)[0].splitlines()[0]
    assert sentence.startswith("# No clear difference: ")
    check_sentence(history, "better", "noise", sentence, "not distinguishable from noise")


def test_the_report_says_what_changed(history: Path, improved: Path) -> None:
    markdown, html = reports(improved)
    assert f"<h1>{markdown.splitlines()[0][2:]}</h1>" in html.replace("&lt;", "<")
    assert "Warning" not in html
    assert "| epochs | 1 | 4 |" in markdown
    assert "| load | parameters: train_images |" in markdown
    assert "| train | parameters: epochs; data: data/prepared/train |" in markdown
    assert "| evaluate: test_accuracy |" in markdown
    assert "xychart-beta" in markdown
    found = json.loads(git(history, "show", "better:metrics/evaluate.json"))
    for name in ("macro_f1", "test_loss", "expected_calibration_error"):
        cells = re.search(rf"\n\| {name} \|(.*)\|(.*)\|.*\| p (=|<) 0\.", markdown)
        assert f" {found[name]:.4f} (" in cells[2]
        assert re.search(rf"evaluate: {name} \|.*paired bootstrap, p ", markdown)
    assert html.count("data:image/png;base64,") > 1  # the images on which they differ
    assert "Newly right" in html


def test_a_clone_with_nothing_pulled_is_enough(
    history: Path, improved: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--branch", "main", str(history), "clone")
    review(tmp_path / "clone", "baseline", "better")
    markdown, html = reports(tmp_path / "clone")
    assert markdown.splitlines()[0] == reports(improved)[0].splitlines()[0]
    assert "Warning" not in html
    assert "data/prepared is not whole" in markdown
    assert "data:image/png" not in html
    assert not (tmp_path / "clone/data/prepared").exists()


def test_other_test_images_are_two_proportions(history: Path) -> None:
    table = predictions(history, "better")
    content = {"plots/predictions.csv": table[:60].to_csv(index=False)}
    changed(history, "fewer", **content)
    output = review(history, "baseline", "fewer")
    sides = [predictions(history, "baseline"), table[:60]]
    counts = [(s["actual"] == s["predicted"]).value_counts() for s in sides]
    table = [[c.get(True, 0), c.get(False, 0)] for c in counts]
    p = stats.chi2_contingency(table, correction=False).pvalue
    assert f"two proportions, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}" in output
    assert "The images differ (100 before, 60 after)" in output
    assert "warning: The test set differs" in output
    stale = "The committed dvc.lock of fewer does not belong to its committed code and parameters"
    assert f"warning: {stale}: DVC would run evaluate" in output
    assert f"{stale}: DVC would run evaluate" in reports(history)[0]  # not cut, as names are


def test_missing_metrics_are_said(history: Path) -> None:
    changed(history, "missing", **{"metrics/evaluate.json": None, "plots/predictions.csv": None})
    output = review(history, "baseline", "missing")
    assert "warning: missing has no test_accuracy from 0 to 1 in metrics/evaluate.json" in output
    lacking = "missing lacks results that Git should keep"
    assert f"warning: {lacking}: metrics/evaluate.json, plots/predictions.csv" in output
    assert "cannot be compared" in reports(history)[0].splitlines()[0]


def test_names_are_never_markup(history: Path) -> None:
    sides = {}
    own = f"  own: {{cmd: exec true, params: ['{SCRIPT}']}}\n"  # or no stage would read it
    pipeline = (history / "dvc.yaml").read_text().replace("\nplots:\n", f"{own}\nplots:\n")
    for name, share in (("hostile-1", 0.3), ("hostile-2", 0.1)):
        table = predictions(history, "better")
        table["image"] = [f'test/"{SCRIPT}`@team`|{i}' for i in range(len(table))]
        table["actual"] = np.where(table["actual"] == "3", SCRIPT, table["actual"])
        table["predicted"] = table["actual"]
        table.loc[: int(share * len(table)), "predicted"] = '"><img src=x onerror=alert(1)>'
        sides[name] = table.to_csv(index=False)
        params = (history / "params.yaml").read_text() + f"'{SCRIPT}': '{name} {SCRIPT} #1'\n"
        files = {"plots/predictions.csv": sides[name], "params.yaml": params, "dvc.yaml": pipeline}
        changed(history, name, **files)
    git(history, "branch", "--force", "x&<b>y", "hostile-1")
    review(history, "x&<b>y", "hostile-2")
    for text in reports(history):
        body = text.partition("<script type=")[0]
        assert "&lt;script&gt;" in body or "&#60;script&#62;" in body
        assert SCRIPT not in text
        assert "<img src=x" not in text
        assert "<b>" not in body
    assert "@team" not in reports(history)[0]


def test_many_classes_are_cut_not_hung_on(history: Path) -> None:
    classes = [f"kind {number} of 👨\N{ZERO WIDTH JOINER}👧" for number in range(250)]
    for name, wrong in (("many-1", 3), ("many-2", 4)):
        table = predictions(history, "better")
        table = pd.concat([table] * 3)[: len(classes)]
        table["image"] = [f"test/{number}" for number in range(len(table))]
        table["actual"] = table["predicted"] = classes
        table.iloc[::wrong, table.columns.get_loc("predicted")] = classes[7]
        shares = pd.DataFrame({"class": classes, "precision": 1 / wrong, "recall": 1, "f1": 1})
        changed(
            history,
            name,
            **{
                "plots/predictions.csv": table.to_csv(index=False),
                "plots/per_class.csv": shares.to_csv(index=False),
            },
        )
    review(history, "many-1", "many-2")
    markdown, html = reports(history)
    assert html.count("Not drawn: 250 classes are too many") == 4
    assert "and 150 more, which plots/per_class.csv has" in html
    assert html.count(classes[7]) < 250
    assert "Those that moved most, of 250" in markdown


def test_a_comment_of_long_names_still_fits(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(history)
    report = compare(resolve("baseline"), resolve("better"))
    texts = "@" * 80, "<" * 80, "|" * 80
    report = replace(
        report,
        changes=replace(report.changes, parameters=[ParameterChange(*texts)] * 60),
        metrics=replace(report.metrics, rows=[MetricChange(*texts, "", "", "")] * 60),
    )
    assert len(render("report.md", report, limits=Limits())) > COMMENT_LIMIT
    assert len(comment(report)) <= COMMENT_LIMIT


@pytest.mark.parametrize(
    ("base", "rev", "line"),
    [
        ("nowhere", "HEAD", "review: error: nowhere is no revision of this repository; it must be"),
        ("", "main", "review: error: every commit of main is on the branch main too; say what"),
        ("--help-me", "HEAD", "review: error: --help-me is no revision"),
    ],
)
def test_a_mistake_is_one_line(history: Path, base: str, rev: str, line: str) -> None:
    words = [f"--base={base}", f"--rev={rev}"]
    output = command(history, sys.executable, "-m", "review", *words, fails=True)
    assert output.startswith(line)
    assert output.count("\n") == 1


def test_a_parameter_that_no_stage_reads_is_named(history: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(history), "clone")
    clone = tmp_path / "clone"
    (clone / "params.yaml").open("a").write("epoch: 10\n")
    commit(clone, "as -S +epoch=10 does")
    said = "no stage reads 'epoch'; did you mean epochs?"
    for words in (("review", "--base=better"), ("runs.seeds", "2")):
        assert said in command(clone, sys.executable, "-m", *words, fails=True)


def test_a_regression_fails_where_it_must(history: Path) -> None:
    make = ("make", "--silent", "--assume-old", ".venv/installed", "review", "FAIL_ON=regression")
    output = command(history, *make, "BASE=better", "REV=baseline", fails=True)
    assert "review: Worse: " in output and ": a regression.\n" in output
    assert "review: error: baseline is a regression, and FAIL_ON=regression forbids one\n" in output
    assert reports(history)[0].startswith("# Worse: ")  # what it fails for can be read
    output = command(history, *make[:-1], "FAIL_ON=worse $x", "BASE=better", fails=True)
    assert output.startswith(
        "review: error: FAIL_ON is worse $x; it must be regression, or nothing"
    )


MADE = "{cmd: exec true, outs: [plots/predictions.csv: {cache: false}]}"


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (f"stages: {{evaluate: {MADE}}}", None),
        (f"stages: {{evaluate: {MADE.replace('/predictions.csv', '')}}}", None),
        (f"stages: {{evaluate: {MADE[:-1]}, frozen: true}}}}", "evaluate is frozen in dvc.yaml"),
        (f"stages: {{evaluate: {MADE.replace('.csv', '.tsv')}}}", "output plots/predictions.csv"),
        ("stages: {}", "no stage of dvc.yaml has as its output plots/predictions.csv"),
        (f"stages: {{evaluate: {MADE}}}\nmetrics: [own.json]", "has as its output own.json"),
        (f"stages: {{evaluate: {MADE}}}\nplots: [own.json]", "has as its output own.json"),
    ],
)
def test_every_result_is_made_by_a_stage_that_runs(
    tmp_path: Path, pipeline: str, said: str | None
) -> None:
    for name in (".dvc/config", "own.json", "plots/predictions.csv", "other/dvc.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dvc.yaml").write_text(pipeline)
    if pipeline == "stages: {}":  # a stage of another pipeline, which is not run
        (tmp_path / "other/dvc.yaml").write_text(f"stages: {{evaluate: {MADE[:-1]}, wdir: ..}}}}")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all", "--force")
    found = unmade_results(tmp_path)
    assert (said in found[0]) if said else found == []


def experiment(folder: Path, name: str, commit: str) -> None:
    """Let a commit be an experiment of DVC."""
    git(folder, "update-ref", f"refs/exps/{'a' * 2}/{'b' * 38}/{name}", commit)


def test_a_name_of_several_meanings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for message in ("first", "second"):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", message)
    first, second = (git(tmp_path, "rev-parse", name).strip() for name in ("HEAD~1", "HEAD"))
    for name in ("own", "main", "HEAD", "origin/x", "twice", first[:7], second):
        experiment(tmp_path, name, first)
    git(tmp_path, "branch", "twice", first)
    git(tmp_path, "tag", "twice", second)
    git(tmp_path, "update-ref", "refs/remotes/origin/x", second)
    git(tmp_path, "tag", "v/1", first)
    assert resolve("own").commit == resolve("v/1").commit == resolve(first[:7]).commit == first
    assert resolve("HEAD").commit == resolve(second).commit == resolve(second[:8]).commit == second
    experiment(tmp_path, second[:8], first)
    for name, meanings in (
        ("main", f"the branch {second}, the experiment {first}"),
        ("origin/x", f"the branch of a remote {second}, the experiment {first}"),
        ("twice", f"the branch {first}, the tag {second}, the experiment {first}"),
        (second[:8], f"the commit {second}, the experiment {first}"),
        ("main~1", None),
    ):
        if meanings is None:
            assert resolve(name).commit == first
            continue
        with pytest.raises(InputError) as raised:
            resolve(name)
        assert str(raised.value) == (f"{name} has 2 meanings; give the hash of one: {meanings}")


def test_a_seed_alone_is_no_verdict(history: Path) -> None:
    lock = git(history, "show", "better:dvc.lock").replace(" seed: 42\n", " seed: 43\n")
    params = git(history, "show", "better:params.yaml").replace("seed: 42\n", "seed: 43\n")
    table = predictions(history, "better")
    is_right = table.index[table["actual"] == table["predicted"]]
    table.loc[is_right[:20], "predicted"] = "none of them"
    files = {"dvc.lock": lock, "params.yaml": params}
    changed(history, "seed", **files, **{"plots/predictions.csv": table.to_csv(index=False)})
    output = review(history, "better", "seed", NO_REGRESSION)
    assert output.startswith("review: One setting, no verdict: seed (42 before, 43 after) alone ")
    assert (
        "0 images newly right, 20 newly wrong. Between runs of one setting that is luck." in output
    )
    markdown, html = reports(history)
    for text in (output, markdown, html):
        assert "One setting, no verdict" in text
        said = text.partition("<script")[0]
        assert not re.search(r"a regression\.|McNemar test, p|bootstrap, p", said)


@pytest.mark.slow
def test_settings_are_counted_and_p_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    lock = (ROOT / "dvc.lock").read_text()
    table = pd.read_csv(ROOT / "plots/predictions.csv", dtype=str)
    table.loc[:19, "predicted"] = "none of them"  # as many mistakes as the test puts right
    is_right = (table["actual"] == table["predicted"]).to_numpy()
    code, images = (
        re.search(rf"path: {path}\n +hash: md5\n +md5: (\w+)", lock)[1]
        for path in ("stages/train.py", "data/prepared/test")
    )
    (tmp_path / "plots").mkdir()

    def scored(fixed: int, broken: int, old: str = "", new: str = "") -> str:
        """Commit a result that is another one than the first, with another dvc.lock."""
        (tmp_path / "dvc.lock").write_text(lock.replace(old, new) if old else lock)
        changed = table.copy()
        right, wrong = np.flatnonzero(is_right)[:broken], np.flatnonzero(~is_right)[:fixed]
        changed.loc[wrong, "predicted"] = table.loc[wrong, "actual"]
        changed.loc[right, "predicted"] = "none of them"
        changed.to_csv(tmp_path / "plots/predictions.csv", index=False)
        commit(tmp_path, f"{fixed} newly right, {broken} newly wrong")
        return git(tmp_path, "rev-parse", "HEAD").strip()

    def check(name: str, said: str, corrected: float) -> None:
        """Check where a revision stands against the first one, and its p value."""
        sides = resolve(base), resolve(name)
        found = standing(*sides)
        comparison = compare_scores(*sides, found).comparison
        assert (str(found), comparison.corrected) == (said, pytest.approx(corrected))

    base = scored(0, 0)
    better = scored(12, 2, "epochs: 5\n", "epochs: 10\n")
    other = scored(9, 3, "epochs: 5\n", "epochs: 11\n")
    p_better, p_other, p_best = (
        stats.binomtest(fixed, trials).pvalue for fixed, trials in ((12, 14), (9, 12), (20, 20))
    )
    check(better, "one of 3 settings", 2 * p_better)
    check(other, "the 3rd setting", p_other)

    # Other code that predicts the same is no other setting, nor is another seed.
    scored(0, 0, code, code[::-1])
    scored(30, 1, " seed: 42\n", " seed: 43\n")
    # What is on other images, or cannot be read, is none of these.
    scored(31, 1, images, images[::-1])
    scored(32, 1, "epochs: 5\n", "epochs: [\n")
    check(other, "the 3rd setting", p_other)

    # An experiment is one, also if no branch holds it. DVC's own notes are not.
    best = scored(20, 0, "epochs: 5\n", "epochs: 12\n")
    git(tmp_path, "update-ref", f"refs/exps/{'a' * 2}/{'b' * 38}/best", best)
    note = scored(21, 0, "epochs: 5\n", "epochs: 13\n")
    git(tmp_path, "update-ref", "refs/exps/apply/ORIG_HEAD", note)
    git(tmp_path, "reset", "--quiet", "--hard", other)
    check("best", "the 4th setting", 3 * p_best)
    check(better, "one of 4 settings", 2 * p_better)
    check(other, "one of 4 settings", p_other)


@pytest.mark.parametrize(
    ("commands", "found"),
    [
        ((), "trunk"),  # the only branch there is
        (("branch other",), None),
        (("branch other", "branch master"), "master"),
        (("branch other", "branch master", "branch main"), "main"),
        (("branch other", "config init.defaultBranch other"), "other"),
        (("branch main", "update-ref refs/remotes/origin/dev HEAD", "remote set-head origin dev"),
         "origin/dev"),
        (("branch dev", "update-ref refs/remotes/origin/dev HEAD", "remote set-head origin dev"),
         "dev"),
        (("update-ref refs/remotes/origin/main HEAD",), "origin/main"),
    ],
)  # fmt: skip
def test_the_main_branch_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: tuple[str, ...], found: str | None
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
    git(tmp_path, "remote", "add", "origin", "nowhere")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    for words in commands:
        git(tmp_path, *words.split())
    if found is None:
        with pytest.raises(InputError, match="make review BASE=HEAD~1"):
            main_branch()
    else:
        assert main_branch() == found


def test_a_variable_of_make_is_one_name(history: Path) -> None:
    make = ("make", "--silent", "--assume-old", ".venv/installed", "review")
    for name in ("--help", "a b", """'"$b`touch c`$(shell touch d)"""):
        output = command(history, *make, "BASE=baseline", f"REV={name}", fails=True)
        assert output.startswith(f"review: error: {name} is no revision of this repository")
    assert not [name for name in ("c", "d") if (history / name).exists()]


def test_a_hook_changes_nothing_but_the_reports(history: Path, tmp_path: Path) -> None:
    git(history, "worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"), "main")
    git(tmp_path, "init", "--quiet", "--bare", "remote")

    def state() -> list[str]:
        """Return heads, indexes and references of the repository."""
        found = [git(history, "for-each-ref")]
        for folder in (history, tmp_path / "linked"):
            found += [git(folder, "symbolic-ref", "HEAD"), git(folder, "ls-files", "--stage")]
            found += [git(folder, "status", "--short")]
        return found

    hook = f"#!/bin/sh\nexec {sys.executable} -m review --base baseline --rev better\n"
    hooks = [history / ".git/hooks" / name for name in ("pre-commit", "pre-push")]
    try:
        for path in hooks:
            path.parent.mkdir(exist_ok=True)
            path.write_text(hook)
            path.chmod(0o755)
        before = state()
        words = ("commit", "--allow-empty", "--message", "in a hook")
        assert "review: the whole review is in" in git(tmp_path / "linked", *words)
        git(tmp_path / "linked", "update-ref", "refs/heads/linked", "HEAD~1")
        assert state() == before
        output = git(tmp_path / "linked", "push", "../remote", "linked")
        assert "review: the whole review is in" in output
        assert state() == before
        assert "Warning" not in reports(tmp_path / "linked")[1]
    finally:
        for path in hooks:
            path.unlink(missing_ok=True)
        git(history, "worktree", "remove", "--force", str(tmp_path / "linked"))
        git(history, "branch", "-D", "linked")


def test_a_folder_of_a_larger_repository(history: Path, improved: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    folder = tmp_path / "models/of digits"
    folder.mkdir(parents=True)
    for name in ("baseline", "better"):
        git(history, "archive", "--output", str(tmp_path / "archive.tar"), name)
        shutil.unpack_archive(tmp_path / "archive.tar", folder)
        (tmp_path / "archive.tar").unlink()
        commit(tmp_path, name)
        git(tmp_path, "tag", name)
    review(folder, "baseline", "better")
    markdown, html = reports(folder)
    lines = [text.splitlines()[0] for text in (markdown, reports(improved)[0])]
    assert lines[0].partition(", and p")[0] == lines[1].partition(", and p")[0]
    assert "for being the 2nd setting" in lines[0]  # there is no other commit
    assert "Warning" not in html
    assert "| epochs | 1 | 4 |" in markdown
    assert "| evaluate: test_accuracy |" in markdown


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("dvc.lock", "stages:\n"),
        ("dvc.lock", "{}\n"),
        ("dvc.lock", "- stages\n"),
        ("dvc.lock", "schema: '2.0'\nstages: [load]\n"),
        ("dvc.lock", "schema: '2.0'\nstages: {load: }\n"),
        ("dvc.lock", "schema: '2.0'\nstages: {load: [cmd]}\n"),
        ("dvc.lock", "schema: '2.0'\nstages: {load: {cmd: x, deps: {path: x}, params: [x]}}\n"),
        ("metrics/evaluate.json", "[0.9]\n"),
        ("metrics/evaluate.json", '"0.9"\n'),
        ("metrics/evaluate.json", '{"test_accuracy": "high"}\n'),
        ("metrics/evaluate.json", '{"test_accuracy": .nan}\n'),
        ("metrics/evaluate.json", '{"test_accuracy": true}\n'),
        ("metrics/evaluate.json", f'{{"test_accuracy": {10**400}}}\n'),
        ("plots/predictions.csv", "image,predicted\na,1\n"),
        ("plots/predictions.csv", "image,actual,predicted,confidence\n"),
    ],
)
def test_a_file_of_another_form_is_none(
    history: Path, monkeypatch: pytest.MonkeyPatch, path: str, content: str
) -> None:
    changed(history, "odd", **{path: content})
    monkeypatch.chdir(history)
    odd, sound = resolve("odd"), resolve("better")
    assert (odd.stages == {}) == (path == "dvc.lock")
    assert (odd.accuracy is None) == (path == "metrics/evaluate.json")
    assert (odd.predictions is None) == (path == "plots/predictions.csv")
    assert (list(odd.seeds()) == [42]) == (path == "plots/predictions.csv")
    assert list(sound.seeds()) == [42]


def test_files_of_another_form_are_reviewed(history: Path) -> None:
    files = {
        "dvc.lock": "stages:\n",
        "metrics/evaluate.json": "[0.9]\n",
        "plots/predictions.csv": "image\n",
    }
    changed(history, "odd", **files)
    output = review(history, "odd", "better")
    assert "Traceback" not in output
    assert "warning: DVC cannot read the pipeline of odd." in output
    assert "warning: odd has no test_accuracy from 0 to 1 in metrics/evaluate.json." in output
    changed(history, "odd", **{"plots/predictions.csv": ""})
    output = review(history, "odd", "better", fails=True)
    assert output == "review: error: plots/predictions.csv of odd cannot be read\n"
    table = predictions(history, "better")
    table.loc[6, "confidence"] = "inf"
    changed(history, "odd", **{"plots/predictions.csv": table.to_csv(index=False)})
    output = review(history, "better", "odd", fails=True)
    said = "row 7, column confidence, is 'inf'; it must be a number from 0 to 1"
    assert output == f"review: error: plots/predictions.csv of odd: {said}\n"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        *(("confidence", value, "a number from 0 to 1") for value in ("nan", "", "-0.1", "1.1")),
        *(("loss", value, "a finite number, 0 or more") for value in ("inf", "nan", "-1", "low")),
        ("image", "a", "another image in each row"),
        ("actual", "", "a name"),
        ("predicted", "", "a name"),
    ],
)
def test_a_cell_that_no_run_writes_is_named(column: str, value: str, said: str) -> None:
    rows = [("a", "1", "1", "1.000000", "-0.000000"), ("b", "1", "2", "0.5", "16.118096")]
    table = pd.DataFrame(rows, columns=[*PREDICTIONS, "loss"])
    assert fault_of(table) is None
    assert fault_of(table.drop(columns="loss")) is None  # older ones have none
    table.loc[1, column] = value
    assert fault_of(table) == f"row 2, column {column}, is {value!r}; it must be {said}"
    assert scored_of(table.to_csv(index=False).encode()) is None  # the board does without it


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_works_offline(improved: Path, width: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    with headless_browser() as browser:
        set_screen(browser, width)
        browser.execute_cdp_cmd("Network.enable", {})
        cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
        browser.get((improved / "review/report.html").as_uri())
        drawn = "return document.querySelectorAll('.chart svg').length"
        WebDriverWait(browser, 60).until(lambda b: b.execute_script(drawn) == 7)
        marks = (
            "return document.querySelectorAll('.chart svg .mark-line path, .mark-rect path').length"
        )
        assert browser.execute_script(marks) > 20
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        unnamed = "return [...document.images].filter(i => !i.alt).length"
        assert browser.execute_script(unnamed) == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            [0.9703] * 10,
            [0.9703] * 2,
            "(+0.00 points). All seeds of each side gave the same accuracy: "
            "not distinguishable from noise.",
        ),
        (
            [0.99] * 2,
            [0.9905] * 2,
            "(+0.05 points). All seeds of each side gave the same accuracy: "
            "no test can tell it from noise.",
        ),
        ([0.97] * 9, [0.97, 0.98], "Welch's t test, p = 0.500: not distinguishable from noise."),
    ],
)
def test_seeds_without_a_difference_prove_nothing(
    before: list[float], after: list[float], said: str
) -> None:
    comparison = over_seeds(before, after)
    assert seeds_sentence(comparison, len(before), len(after)).endswith(said)


@given(st.integers(1, 10_000), st.data())
@pytest.mark.filterwarnings("error")
def test_seeds_are_compared_as_by_scipy(images: int, data: st.DataObject) -> None:
    counts = st.lists(st.integers(max(0, images - 3), images), min_size=2, max_size=10)
    before, after = data.draw(counts), data.draw(counts)
    result = over_seeds([n / images for n in before], [n / images for n in after])
    if len(set(before)) == len(set(after)) == 1:
        assert (result.before, result.after) == (before[0] / images, after[0] / images)
        assert np.isnan([result.low, result.high]).all()
        assert result.p_value == 1 if before[0] == after[0] else np.isnan(result.p_value)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.ttest_ind(after, before, equal_var=False)
        interval = expected.confidence_interval()
    assert [result.low, result.high] == pytest.approx(np.divide(interval, images), abs=1e-9)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
@pytest.mark.filterwarnings("error")
def test_images_are_compared_as_by_scipy(pairs: list[tuple[bool, bool]]) -> None:
    before, after = np.array(pairs).T
    fewer = after[len(after) // 2 :]
    same, other = paired(before, after), unpaired(before, fewer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = stats.ttest_rel(after.astype(int), before.astype(int)).confidence_interval()
        apart = stats.ttest_ind(fewer.astype(int), before.astype(int), equal_var=False)
        apart = apart.confidence_interval()
    if len(set(after.astype(int) - before)) == 1:
        assert np.isnan([same.low, same.high]).all()
    else:
        assert [same.low, same.high] == pytest.approx(list(together), abs=1e-9)
    if len(fewer) < 2 or len(set(before)) == len(set(fewer)) == 1:
        assert np.isnan([other.low, other.high]).all()
    else:
        assert [other.low, other.high] == pytest.approx(list(apart), abs=1e-9)
    for result in (same, other):
        assert 0 < result.p_value <= 1
        if result.verdict != "not distinguishable from noise":
            assert (result.verdict == "an improvement") == (result.after > result.before)
