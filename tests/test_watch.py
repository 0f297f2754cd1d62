"""The page of `make watch`: what it reads, and what a browser shows of a training that runs."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runs.watch import COLUMNS, read_training
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    headless_browser,
    hear_ctrl_c,
    set_screen,
    write_params,
)

HEADER = ",".join(COLUMNS)
SCRIPT = "<img src=x onerror=alert(1)>"
PYTHON = [sys.executable, "-m"]
OPTIONS = {"env": ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, "text": True}


ROW = "1,0.5,0.5,{},0.5"
TABLES = {  # what may be found in plots/training.csv, and the number of epochs that it gives
    "nothing": ("", 0),
    "no epoch": (HEADER, 0),
    "an epoch": (f"{HEADER}\n{ROW.format(0.5)}", 1),
    "too few cells": (f"{HEADER}\n1,0.5", None),
    "no number": (f"{HEADER}\n{ROW.format('nan')}", None),
    "too large a number": (f"{HEADER}\n{ROW.format('1e999')}", None),
    "markup": (f"{HEADER}\n{ROW.format(SCRIPT)}", None),
    "other columns": (f"epoch,{SCRIPT}\n1,2", None),
    "no text": (f"{HEADER}\n\udcff\0", None),
    "too long a cell": (f"{HEADER}\n{'1' * 200_000}", None),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_form_is_said(tmp_path: Path, name: str) -> None:
    content, epochs = TABLES[name]
    (tmp_path / "params.yaml").write_text("[" * 1000)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/training.csv").write_bytes(content.encode(errors="surrogateescape"))
    training = read_training("workspace", tmp_path, is_running=False)
    assert bool(training.problem) == (epochs is None)
    assert len(training.rows) == (epochs or 0)
    assert training.epochs is None  # which params.yaml does not say


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen]:
    """Start a program in a folder; end it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": hear_ctrl_c}
    with subprocess.Popen([*PYTHON, *words], cwd=folder, **pipes, **OPTIONS) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver on this machine")
def test_a_training_is_watched(tmp_path: Path, dataset: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    experiment = tmp_path / ".dvc/tmp/exps/tmp1"  # the names that DVC gives
    for path in (experiment, tmp_path / "plots"):
        path.mkdir(parents=True)
    for root, name in ((tmp_path, "earlier"), (experiment, SCRIPT)):
        note = tmp_path / f".dvc/tmp/exps/run/{root.name}/{root.name}.run"
        note.parent.mkdir(parents=True)
        note.write_text(json.dumps({"root_dir": str(root), "name": name}))
    (tmp_path / "plots/training.csv").write_text(f"{SCRIPT}\n1\n")
    write_params(experiment, dataset=str(dataset), epochs=9999)
    for stage in ("load", "define"):
        subprocess.run([*PYTHON, f"stages.{stage}"], cwd=experiment, check=True, **OPTIONS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with started(tmp_path, "runs.watch", port) as watch, headless_browser() as browser:
        address = f"http://127.0.0.1:{port}/"
        assert address in watch.stdout.readline()
        taken = subprocess.run(
            [*PYTHON, "runs.watch", port], cwd=tmp_path, capture_output=True, **OPTIONS
        )
        assert taken.returncode == 1
        assert taken.stderr.startswith(f"watch: error: port {port} cannot be used")
        assert taken.stderr.count("\n") == 1

        def shows(*texts: str) -> None:
            everything = "return document.body.innerText"
            WebDriverWait(browser, 60).until(
                lambda b: all(text in b.execute_script(everything) for text in texts), texts
            )

        browser.get(address)
        shows("Nothing runs now", "plots/training.csv cannot be read")
        with started(experiment, "stages.train") as train:
            shows("Running now: 1", SCRIPT, "of 9999 runs. Epoch ")
            epoch = "return +document.body.innerText.match(/Epoch (\\d+) of 9999/)[1]"
            points = "return document.querySelectorAll('.chart svg .mark-symbol path').length"
            for width in (1280, 390):
                set_screen(browser, width)
                first = browser.execute_script(epoch)
                for script, at_least in ((epoch, first + 5), (points, 4 * first)):
                    WebDriverWait(browser, 60).until(
                        lambda b, s=script, least=at_least: b.execute_script(s) >= least
                    )
                found = browser.execute_script("return document.documentElement.scrollWidth")
                assert found <= width
            train.kill()
            shows("Nothing runs now")
        assert SCRIPT not in browser.execute_script("return document.body.innerText")
        assert browser.execute_script("return document.images.length") == 0
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
        assert watch.stderr.read() == ""
