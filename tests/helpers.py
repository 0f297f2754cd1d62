"""What several tests share: commands, parameters, and the contents of files and folders."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from common.params import StageParams
from review.revision import folder_environment

if TYPE_CHECKING:
    from selenium import webdriver

ROOT = Path(__file__).parent.parent
yaml = YAML(typ="safe")  # as DVC reads it
COMMITTED = yaml.load(ROOT / "params.yaml")
DEFAULTS = yaml.load(ROOT / "tests/params.yaml")
STAGES = ("load", "define", "train", "evaluate")
SMALL = {  # settings with which the whole pipeline takes seconds
    "train_images": 600,
    "validation_images": 100,
    "test_images": 100,
    "conv_filters": [8],
    "dense_units": [32],
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.003,
}
ENVIRONMENT = folder_environment() | {  # as outside of a hook, which may run these tests
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}
# An import of TensorFlow in this process sets it; what users start begins without it.
ENVIRONMENT.pop("TF_CPP_MIN_LOG_LEVEL", None)
# `make test` sets them; a make that a test starts is no part of that one.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    ENVIRONMENT.pop(name, None)

# What Python lacks on macOS, and the flag of `madvise` that may be absent elsewhere.
MACOS = """
import mmap, multiprocessing, os
del os.sched_getaffinity, os.sched_setaffinity, mmap.MADV_DONTNEED
multiprocessing.set_start_method("spawn")
"""


def __getattr__(name: str) -> dict[str, type[StageParams]]:
    """Return `PARAMETERS_OF`, the parameter class of each stage that has one, by its name.

    The stages import TensorFlow, which takes seconds: only tests that need the classes wait.
    """
    if name != "PARAMETERS_OF":
        raise AttributeError(name)
    from stages import define, evaluate, load, train

    return {
        "load": load.LoadParams,
        "define": define.DefineParams,
        "train": train.TrainParams,
        "evaluate": evaluate.EvaluateParams,
    }


def command(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run a command as a user would and return all it prints; it must succeed, or fail."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def git(folder: Path, *arguments: str) -> str:
    """Run git."""
    return command(folder, "git", *arguments)


def dvc(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run dvc."""
    return command(folder, "dvc", *arguments, fails=fails)


@contextmanager
def headless_browser() -> "Iterator[webdriver.Chrome]":
    """Open Chromium without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(
        options, webdriver.ChromeService(shutil.which("chromedriver"))
    ) as browser:
        yield browser


def set_screen(browser: "webdriver.Chrome", width: int) -> None:
    """Give the browser a screen of this width in pixels; a narrow one is that of a telephone."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def stages_run(output: str) -> list[str]:
    """Return the names of the stages that a `dvc repro` ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def hear_ctrl_c() -> None:
    """Let a process that is about to start end at Ctrl-C, as one in a terminal does.

    A shell that runs the tests in the background has them, and what they start, ignore it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def as_on_macos(folder: Path) -> dict[str, str]:
    """Return an environment in which Python lacks what macOS lacks, and starts processes as there.

    The Pythons that such a Python starts do so, too. The folder, which is made, holds how.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MACOS)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def write_params(folder: Path, **changes: object) -> None:
    """Write params.yaml: the defaults, made small, with changes."""
    yaml.dump(DEFAULTS | SMALL | changes, folder / "params.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copy_repository(folder: Path) -> None:
    """Copy the files of the repository that a pipeline with its own data needs."""
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        is_result = name.startswith(("plots/", "metrics/", "tests/"))
        is_of_data = name.endswith((".dvc", "dvc.lock")) or name == "data/dvc.yaml"
        if (ROOT / name).is_file() and not is_result and not is_of_data:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # That of the repository may name a remote, which is no business of the tests.
    (folder / ".dvc/config").write_text("[core]\n    autostage = true\n    analytics = false\n")


def archive_of(folder: Path, path: Path, prefix: str = "") -> Path:
    """Return a stored zip archive of a folder's files."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


DIGIT = np.zeros((28, 28), np.uint8)
DIGIT[4:24, 12:16] = 220
DIGIT[4:8, 8:20] = 130
GREY = Image.fromarray(DIGIT)
TOO_LARGE = encoded(Image.new("1", (11_600, 11_600)), compress_level=1)  # above 2^27 pixels
ADMITTED = {  # the same image in every form that `load` reads
    "grey JPEG": encoded(GREY, "JPEG", quality=100),
    "progressive JPEG": encoded(GREY, "JPEG", quality=100, progressive=True),
    "colour JPEG": encoded(GREY.convert("RGB"), "JPEG", quality=100),
    "CMYK JPEG": encoded(GREY.convert("RGB").convert("CMYK"), "JPEG", quality=100),
    "JPEG with more behind it": encoded(GREY, "JPEG", quality=100) + b"a video \xff\xda, as it may",
    "grey PNG": encoded(GREY),
    "palette PNG": encoded(GREY.convert("P")),
    "PNG with alpha": encoded(GREY.convert("RGBA")),
    "grey PNG with alpha": encoded(GREY.convert("LA")),
    "16-bit PNG": encoded(Image.fromarray(DIGIT.astype(np.uint16) * 257)),
    "grey BMP": encoded(GREY, "BMP"),
    "colour BMP": encoded(GREY.convert("RGB"), "BMP"),
}
