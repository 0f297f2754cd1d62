"""Ctrl-C at any moment, programs in the wrong place, and odd standard streams.

Streams may be closed, full or know ASCII alone.
"""

import ast
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from common.splits import CLASSES, write_classes
from review.git import folder_environment
from runs.recipe import RECIPES
from tests.experiments import start_repository
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    as_on_macos,
    contents,
    dvc,
    git,
    hear_ctrl_c,
    write_params,
    yaml,
)

PROGRAMS = {
    name.removesuffix(".py").removesuffix("/__main__").replace("/", "."): ROOT / name
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    if name.endswith(".py") and (ROOT / name).exists()
    if '\nif __name__ == "__main__":\n' in (ROOT / name).read_text(encoding="utf-8")
}
SEARCH = [
    f"--{key}={value}"
    for key, value in {
        **{"space": "spaces/default.yaml", "trials": 1, "name": "", "seeds": 1, "fresh": 0},
        **{"jobs": 1, "metric": "accuracy", "sampler": "tpe", "storage": ""},
    }.items()
]
ARGUMENTS = {  # with which those of a program can be used that needs some
    "runs.queue": ["1"],
    "runs.recipe": [RECIPES[0], "42"],
    "runs.seeds": ["2"],
    "runs.workers": ["1", "1"],
    "search": SEARCH,
}
PLACES = ("an empty folder", "a folder of Git alone", "no Git", "settings that Git cannot read")
IMPORTABLE = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}


def start(arguments: Iterable[str], folder: Path, **environment: str) -> subprocess.Popen:
    """Start a program as a shell in a terminal does: Ctrl-C reaches all that it starts."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=IMPORTABLE | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "program", "moments"),
    [
        ("load", ["-m", "stages.load"], {"stages": 0, "numpy": 0, "cv2": 0}),
        ("define", ["-m", "stages.define"], {"stages": 0, "pydantic": 0, "common.backend": 0}),
        ("train", ["-m", "stages.train"], {"stages": 0, "numpy": 0, "pydantic": 0.5}),
        ("evaluate", ["-m", "stages.evaluate"], {"pandas": 0, "sklearn": 0}),
        ("review", ["-m", "review"], {"review": 0, "vl_convert": 0}),
        ("seeds", ["-m", "runs.seeds", "2"], {"runs": 0, "pandas": 0}),
        ("search", ["-m", "search", *SEARCH], {"search": 0, "optuna": 0}),
        ("best", ["-m", "search.best"], {"search": 0, "pandas": 0}),
        ("board", ["-m", "board"], {"board": 0, "optuna": 0}),
        ("results", ["-m", "runs.results"], {"runs": 0, "dvc.api": 0}),  # make new leaves this out
        ("recipe", ["-m", "runs.recipe", "fast", "42"], {"runs": 0, "pydantic": 0}),
        ("predict", ["-m", "inference.predict", "a.png"], {"inference": 0, "onnxruntime": 0}),
        ("fetch", ["-m", "data.fetch"], {"data": 0, "numpy": 0}),  # make new leaves this out
        ("new", ["-m", "scaffold.new", "a", "b"], {"cv2": 0}),  # make new leaves this out
    ],
)
def test_ctrl_c_while_a_program_imports_is_one_line(
    workspace: Path, name: str, program: list[str], moments: dict[str, float]
) -> None:
    start_repository(workspace)  # some import the rest only where they can work
    (workspace / ".dvc").mkdir()
    before = contents(workspace)
    for module, seconds in moments.items():
        # Python says when it has imported a module.
        process = start(program, workspace, PYTHONPROFILEIMPORTTIME="1")
        for line in process.stderr:
            if line.split("|")[-1].strip() == module:
                break
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate()
        said = [line for line in errors.splitlines() if not line.startswith("import time:")]
        assert (process.returncode, said) == (130, [f"{name}: interrupted"]), module
    assert contents(workspace) == before


@pytest.mark.parametrize("program", sorted(PROGRAMS.keys() - {"common.restore"}))
def test_every_program_imports_first_what_hears_ctrl_c(program: str) -> None:
    package = (PROGRAMS[program].parent / "__init__.py").read_text(encoding="utf-8")
    _, first, *_ = ast.parse(package).body  # after the docstring
    assert ast.unparse(first) == "from common import startup"


@pytest.mark.parametrize(
    ("program", "arguments", "place"),
    [
        (program, arguments, place)
        for program in sorted(PROGRAMS)
        if program.startswith(("board", "review", "runs", "search", "common.restore"))
        and program != "runs.results"  # make new leaves this out
        for arguments, places in (
            (ARGUMENTS.get(program, []), PLACES),
            ([], ("an empty folder",) if program in ARGUMENTS else ()),
            (["--wrong"], ("an empty folder",)),
        )
        for place in places
    ],
)
def test_a_program_that_cannot_work_here_says_so_in_its_last_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    program: str,
    arguments: list[str],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if place != "an empty folder":
        write_params(tmp_path)
        start_repository(tmp_path)
    if place == "no Git":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif place == "settings that Git cannot read":
        (tmp_path / "settings").write_text("[user\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    folder_environment.cache_clear()
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.delitem(sys.modules, program, raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(program, run_name="__main__")
    folder_environment.cache_clear()
    assert end.value.code
    said = capfd.readouterr().err or str(end.value.code)
    assert "error: " in said.splitlines()[-1]


def test_ctrl_c_while_load_starts_a_process_is_not_lost(workspace: Path) -> None:
    code = (
        "import os, signal; from common import console; from stages import load;"
        "os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT));"
        "console.run('load', load.main)"
    )
    process = start(["-c", code], workspace)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "load: interrupted\n")
    assert set(contents(workspace)) == {"params.yaml"}


@pytest.mark.slow
def test_ctrl_c_while_the_processes_of_load_import_is_one_line(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    macos = as_on_macos(tmp_path_factory.mktemp("hidden") / "macos")
    process = start(["-m", "stages.load"], workspace, PYTHONPROFILEIMPORTTIME="1", **macos)
    errors, imported = [], 0
    for line in process.stderr:
        if not line.startswith("import time:"):
            errors.append(line)
        imported += line.split("|")[-1].strip() == "cv2"
        if imported == 2 and process.poll() is None:  # the second is that of a process of the pool
            os.killpg(process.pid, signal.SIGINT)
            imported += 1
    assert process.wait() == 130
    assert "".join(errors) == "load: interrupted\n"
    assert set(contents(workspace)) == {"params.yaml"}


def test_ctrl_c_reaches_dvc_too_and_the_next_run_goes_on(repository: Path) -> None:
    lines = {
        "load": "> exec python -E -m stages.load",
        "define": "> exec python -E -m stages.define",
        "train": "train: epoch 1/",
    }
    params = yaml.load(repository / "params.yaml")
    yaml.dump(params | {"epochs": 20}, repository / "params.yaml")
    for stage, last in lines.items():
        process = start(["-m", "dvc", "repro"], repository)
        for line in process.stdout:
            if line.startswith(last):
                break
        time.sleep(0.2 if stage != "train" else 0)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate()
        assert errors.startswith(f"{stage}: interrupted\nERROR: failed to reproduce '{stage}'")
        assert process.returncode
        assert not list(repository.rglob("*.partial"))
    assert "Stage 'define' didn't change" in dvc(repository, "repro", "train")


def test_without_a_git_identity_dvc_says_so_where_it_needs_one(
    repository: Path, tmp_path: Path
) -> None:
    git(repository, "reset", "--quiet", "--hard")
    anonymous = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("GIT_")}
    anonymous |= {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def experiment(setting: str) -> str:
        words = ["dvc", "exp", "run", "--set-param", setting, "load"]
        done = subprocess.run(words, cwd=repository, env=anonymous, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert "Ran experiment(s)" in experiment("test_images=90")
    before = (repository / "params.yaml").read_text()  # now it differs from what Git holds
    assert "Git user name and email must be configured\n" in experiment("test_images=80")
    assert (repository / "params.yaml").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "redirection", "status", "errors"),
    [
        ("load", "2>&-", 0, ""),
        ("load", ">&-", 0, ""),
        ("load", "<&- >&- 2>&-", 0, ""),
        ("load", "| true", 1, "load: error: [Errno 32] Broken pipe\n"),
        ("load", "2>&1 | true", 1, ""),
        pytest.param(
            *("load", "> /dev/full", 1, "load: error: [Errno 28] No space left on device\n"),
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full"),
        ),
        ("define", "2>&-", 0, ""),
        ("define", ">&-", 0, ""),
    ],
)
def test_standard_streams_may_be_closed_or_full(
    workspace: Path, stage: str, redirection: str, status: int, errors: str
) -> None:
    if stage == "define":
        Path("data/prepared").mkdir(parents=True)
        write_classes(CLASSES, ["0", "1"])
    shell = f"{sys.executable} -m stages.{stage} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=workspace, env=IMPORTABLE, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, errors)
    assert (workspace / f"metrics/{stage}.json").exists() == (status == 0)
    assert not list(workspace.rglob("*.partial"))


def test_a_name_is_printed_where_the_terminal_knows_ascii_alone(
    workspace: Path, dataset: Path
) -> None:
    images = workspace / "images"
    shutil.copytree(dataset, images)
    for split in ("train", "test"):
        (images / split / "3").rename(images / split / "é")
    (images / "train/é/bad.jpg").write_text("no image")
    settings = {"dataset": str(images), "classes": ["0", "é"], "train_images": None}
    write_params(workspace, **settings, test_images=10, bad_images="skip")
    process = start(["-m", "stages.load"], workspace, PYTHONIOENCODING="ascii")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert r"train/\xe9/bad.jpg" in output
