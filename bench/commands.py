"""Run commands for a measurement: their output, time and memory, and the figures they print."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common.console import InputError

ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "data" / "mnist-jpg.zip"
ENVIRONMENT = os.environ | {
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": str(ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@example.com",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@example.com",
}
PEAK_MEMORY = (  # a program that runs its arguments as a command and prints the peak in MB
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
    "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)"
)

Figures = dict[str, float]  # by their units: `images_per_second`, `seconds`, `megabytes`, ...


def run_command(folder: Path, *arguments: str) -> str:
    """Run a command in a folder and return what it prints.

    Parameters
    ----------
    folder : Path
        Where to run it.
    arguments : str
        The program and its arguments.

    Raises
    ------
    InputError
        If it fails, with the end of what it prints.
    """
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise InputError(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def measure_seconds(folder: Path, *arguments: str) -> Figures:
    """Return the seconds that a command takes on the clock."""
    start = time.perf_counter()
    run_command(folder, *arguments)
    return {"seconds": time.perf_counter() - start}


def measure_memory(folder: Path, *arguments: str) -> Figures:
    """Return the megabytes of the largest resident set that a command has."""
    return {"megabytes": float(run_command(folder, "python", "-c", PEAK_MEMORY, *arguments))}


def read_figures(
    folder: Path, module: str, *arguments: object, python: Path = Path(sys.executable)
) -> Figures:
    """Run a module of this project in a folder; return the figures on the last line it prints."""
    output = run_command(folder, str(python), "-m", module, *map(str, arguments))
    return json.loads(output.strip().splitlines()[-1])


def sum_of_epochs(output: str) -> float:
    """Return the seconds of all epochs in what `train` prints."""
    # Not at the top of the file: it imports TensorFlow, which takes seconds.
    from common.training_loop import EPOCH_SECONDS

    return sum(float(seconds) for seconds in EPOCH_SECONDS.findall(output))


def clone_with_results(folder: Path) -> Path:
    """Clone the last commit of this repository into a folder and run its pipeline there."""
    run_command(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    shutil.copy(ARCHIVE, folder / "data")
    run_command(folder, "dvc", "commit", "--force", "data/dvc.yaml")
    run_command(folder, "dvc", "repro")
    return folder
