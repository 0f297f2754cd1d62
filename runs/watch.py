"""Show in a browser the curves of the trainings that run, as they grow: `make watch`.

    python -m runs.watch PORT

The page asks this program each second, which reads plots/training.csv: that of the workspace, and
those in the folders of experiments: of DVC's queue, of `dvc exp run --temp`, and of a search.
"""

import argparse
import csv
import json
import math
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import uvicorn
import vl_convert
from fastapi import FastAPI, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from ruamel.yaml import YAML, YAMLError

from common.console import InputError, run
from runs.commands import whole_number

HOST = "127.0.0.1"  # other machines get no answer
WORKSPACE = Path.cwd().resolve()
EXPERIMENTS = WORKSPACE / ".dvc/tmp/exps"  # where DVC makes the folders of its experiments
TRIALS = WORKSPACE / ".dvc/tmp/search"  # where `make search` makes those of its own
COLUMNS = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


class Training(BaseModel):
    """What the page shows of one training: its epochs so far, or why they cannot be read."""

    name: str
    is_running: bool
    epochs: int | None = None  # until the end, as params.yaml says now
    rows: list[dict[str, float]] = []
    problem: str = ""


def folders_that_train() -> set[Path]:
    """Return the folders, of the workspace and its experiments, in which `train` runs now.

    The system is asked for its processes: what files say of a run would outlast a kill.
    """
    folders = set()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command, folder = process.info["cmdline"] or [], process.info["cwd"]
        if command[-2:] == ["-m", "stages.train"] and folder:
            folders.add(Path(folder))
    below = (EXPERIMENTS, TRIALS)
    return {f for f in folders if f == WORKSPACE or any(f.is_relative_to(b) for b in below)}


def name_of(folder: Path) -> str:
    """Return the name of the experiment that runs in a folder, as `dvc exp show` gives it."""
    if folder.is_relative_to(TRIALS):
        return folder.relative_to(TRIALS).parts[0]
    for file in EXPERIMENTS.glob("run/*/*.run"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            experiment = json.loads(file.read_text())
            root = Path(experiment["root_dir"])  # or the workspace, of an experiment that ran there
            if root.is_relative_to(EXPERIMENTS) and folder.is_relative_to(root):
                return str(experiment["name"] or folder.name)
    return folder.name


def read_training(name: str, folder: Path, is_running: bool) -> Training:
    """Read how far the training in a folder is."""
    training = Training(name=name, is_running=is_running)
    with suppress(OSError, YAMLError, KeyError, TypeError, ValueError, RecursionError):
        training.epochs = int(YAML(typ="safe").load(folder / "params.yaml")["epochs"])
    try:
        with (folder / "plots/training.csv").open(newline="", encoding="utf-8") as file:
            rows = [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]
        if not all(math.isfinite(value) for row in rows for value in row.values()):
            raise ValueError
        training.rows = rows
    except FileNotFoundError:
        pass  # DVC has removed it, and the first epoch has not ended
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        training.problem = f"plots/training.csv cannot be read; its columns are {COLUMNS}"
    return training


def trainings() -> list[Training]:
    """Return the workspace's training, running or not, and the experiments that run elsewhere."""
    running = folders_that_train()
    others = sorted((name_of(folder), folder) for folder in running - {WORKSPACE})
    workspace = read_training("workspace", WORKSPACE, WORKSPACE in running)
    return [workspace, *(read_training(name, folder, True) for name, folder in others)]


def application() -> FastAPI:
    """Return the server: the page, Vega, which draws its charts, and `trainings` as JSON."""
    app = FastAPI(openapi_url=None)
    # Another site's page cannot read the answers by giving its own name this machine's address.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    # The type stub of vl-convert lacks the default of the argument: its own snippet.
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    app.get("/vega.js")(lambda: Response(vega, media_type="text/javascript"))
    app.get("/trainings")(trainings)
    app.mount("/", StaticFiles(directory=Path(__file__).parent / "watch_page", html=True))
    return app


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make watch", description=__doc__.splitlines()[0])
    parser.add_argument("port", metavar="PORT", help="of this machine, where the page is")
    port = whole_number("PORT", parser.parse_args().port, 1, 65_535)
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        reason = f"port {port} cannot be used: {error.strerror}"
        raise InputError(f"{reason}; `make watch PORT=...` takes another") from None
    with listener, suppress(KeyboardInterrupt):
        server = uvicorn.Server(uvicorn.Config(application(), log_level="warning"))
        print(f"watch: the curves are at http://{HOST}:{port}/ until you press Ctrl-C", flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    run("watch", main)
