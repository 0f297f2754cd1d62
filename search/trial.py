"""Run the pipeline with the settings of a trial, in a folder of its own; keep it as an experiment.

The folder is a clone of this repository that shares DVC's cache with it. It stays where a trial
was interrupted, which so goes on from its last epoch, and is removed when the trial has ended.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dvc.config import Config
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

from common.console import InputError
from common.params import PARAMS
from review.git import folder_environment, git, successful_git
from review.revision import EXPERIMENTS, Revision, experiments
from runs.commands import brought_along
from runs.workers import machine_of_job
from search.results import CURVE, State
from search.space import Values
from search.study import FOLDER

POLL = 0.2  # seconds between two looks at a curve
LAST_LINES = 3  # of a trial that failed
LINES_KEPT = 100  # of what a run prints
NO_SPACE = "No space left on device"
ROOM = 5_000_000  # bytes without which a disk counts as full
WhenToStop = Callable[[list[dict[str, float]]], int | None]
starting = threading.Lock()  # `machine_of_job` changes the environment, which all threads share


@dataclass(frozen=True)
class Run:
    """One run of the pipeline, which becomes an experiment.

    Attributes
    ----------
    search : str
        The name of the search.
    label : str
        The number of the trial in three digits; or ``winner`` or ``default``.
    seed : int
        Its seed.
    values : dict
        Its parameters, where they differ from the committed ones.
    trailers : dict of str to str
        What the message of its commit says, but for the seed and the state.
    """

    search: str
    label: str
    seed: int
    values: Values
    trailers: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the experiment, where it runs to its end."""
        return f"{self.search}-{self.label}-{self.seed}"

    def name_as(self, state: State) -> str:
        """Return the name of the experiment where it ends in this state."""
        return self.name if state == "finished" else f"{self.name}-{state}"

    def message_as(self, state: State, reason: str) -> str:
        """Return the message of the commit: a sentence, then Git's trailers."""
        trailers = self.trailers | {"Seed": str(self.seed), "State": state}
        lines = [f"{key}: {value}" for key, value in trailers.items()]
        subject = f"Run {self.label} of the search {self.search} with seed {self.seed}: {state}"
        return "\n\n".join(part for part in (subject, reason, "\n".join(lines)) if part)


@dataclass(frozen=True)
class Outcome:
    """How a run of the pipeline ended.

    Attributes
    ----------
    state : str
        ``finished``, ``pruned`` or ``failed``.
    reason : str
        Why, where it did not run to its end.
    epochs : int or None
        How many epochs of its curve count; None for all.
    """

    state: State
    reason: str = ""
    epochs: int | None = None


class StoppedError(Exception):
    """The search was told to stop, and what ran was ended."""


class Runner:
    """Runs of one commit, several at a time.

    Parameters
    ----------
    head : Revision
        The commit.
    dataset : str
        The data set, as params.yaml names it.
    jobs : int
        How many run at a time, among which the machine is shared.
    stop : Event
        Set where all that runs must end.

    Raises
    ------
    InputError
        If Git does not know the user, or no trial could find the data set.
    """

    def __init__(self, head: Revision, dataset: str, jobs: int, stop: threading.Event) -> None:
        self._head, self._jobs, self._stop = head, jobs, stop
        # A data set that neither Git nor DVC keeps: a trial finds it by a link.
        self._brought = brought_along(dataset)[1:]
        self._identity = {key: identity(key) for key in ("user.name", "user.email")}
        source = (git("rev-parse", "--path-format=absolute", "--git-common-dir") or b"").rstrip()
        self._source = os.fsdecode(source)
        self._prefix = os.fsdecode((git("rev-parse", "--show-prefix") or b"").rstrip())
        with Repo() as repo:
            self._cache = repo.cache.local_cache_dir
            self._users_config = Path(repo.dvc_dir or "", "config.local")

    def run(self, run: Run, job: int, when_to_stop: WhenToStop) -> Outcome:
        """Run the pipeline, watch its curve, and keep it as an experiment; return how it ended.

        Parameters
        ----------
        run : Run
            What to run.
        job : int
            Which of the jobs this is, from 0: it has that share of the machine.
        when_to_stop : callable
            Asked with the rows of the curve, as often as there is a new one; it returns the epoch
            after which to stop, or None.

        Raises
        ------
        StoppedError
            If `stop` was set.
        InputError
            If the disk is full, or Git cannot keep the experiment.
        """
        clone = FOLDER / run.name
        folder = self._set_up(clone, run)
        outcome = self._attempt(folder, job, when_to_stop)
        if outcome.state == "failed":  # once more: it may have been killed, for want of memory
            outcome = self._attempt(folder, job, when_to_stop)
        if NO_SPACE in outcome.reason:
            raise InputError(
                f"{run.name}: {outcome.reason}; make room, and the same command goes on"
            )
        self._keep(folder, run, outcome)
        shutil.rmtree(clone)
        return outcome

    def remove_folders(self, experiments: Iterable[str]) -> None:
        """Remove the folders that are left of runs of which there are experiments.

        Another machine has run them, after this one was killed.
        """
        for name in experiments:
            folder = FOLDER / re.sub(r"-(pruned|failed)$", "", name)
            for left in (folder, folder.with_suffix(".partial")):
                if left.exists():
                    end_processes(left)
                    shutil.rmtree(left, ignore_errors=True)

    def _set_up(self, clone: Path, run: Run) -> Path:
        """Make the folder of a run, or take the one that an interrupted run left; return it.

        Git's own folder is made anew: where a kill left a lock, Git would refuse to work, and a
        file that was changed within a second to the same size it would take for unchanged.
        """
        end_processes(clone)
        made = clone.with_suffix(".partial")
        shutil.rmtree(made, ignore_errors=True)
        options = ("--quiet", "--shared", "--no-checkout")
        successful_git("clone", *options, self._source, str(made))
        for key, value in self._identity.items():
            successful_git("config", key, value, folder=made)
        if (clone / ".git").exists():
            shutil.rmtree(clone / ".git")
        clone.mkdir(exist_ok=True)
        (made / ".git").rename(clone / ".git")
        made.rmdir()
        successful_git(
            "checkout", "--quiet", "--force", "--detach", self._head.commit, folder=clone
        )
        folder = clone / self._prefix
        if self._users_config.exists():
            shutil.copy(self._users_config, folder / ".dvc/config.local")
        with Config(str(folder / ".dvc")).edit("local") as config:
            config["cache"]["dir"] = self._cache
            # DVC's notes of the folder, which it would keep outside of it, go with the folder.
            config["core"]["site_cache_dir"] = str(folder.resolve() / ".dvc/site")
            # What DVC writes into Git's index makes a file that was changed within a second to the
            # same size look unchanged: https://git-scm.com/docs/racy-git
            config["core"]["autostage"] = False
        for dataset in self._brought:
            with suppress(FileExistsError):
                (folder / dataset).symlink_to(Path(dataset).resolve())
        values = run.values | {"seed": run.seed, "evaluate_on": "validation"}
        overrides = [f"{key}={json.dumps(v, separators=(',', ':'))}" for key, v in values.items()]
        apply_overrides(folder / PARAMS, overrides)
        return folder

    def _attempt(self, folder: Path, job: int, when_to_stop: WhenToStop) -> Outcome:
        """Run the pipeline in a folder; return how it ended."""
        (folder / CURVE).unlink(missing_ok=True)  # the committed one: this run has none yet
        with starting, machine_of_job(job, self._jobs):
            process = subprocess.Popen(
                [sys.executable, "-m", "search.repro", str(os.getpid())],
                cwd=folder,
                env=folder_environment() | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # a file could not tell that the disk is full
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches the search alone, which ends this
            )
        printed: deque[str] = deque(maxlen=LINES_KEPT)
        reader = threading.Thread(target=printed.extend, args=(process.stdout,))
        reader.start()
        try:
            epochs = self._watch(process, folder / CURVE, when_to_stop)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
        if epochs is not None:
            return Outcome("pruned", f"It was stopped after epoch {epochs}.", epochs)
        if process.returncode == 0:
            return Outcome("finished")
        lines = [line.strip() for line in printed if line.strip()]
        said = [line for line in lines if "error: " in line.lower()] or lines
        return Outcome("failed", " / ".join(said[-LAST_LINES:]))

    def _watch(
        self,
        process: subprocess.Popen,
        curve: Path,
        when_to_stop: WhenToStop,
    ) -> int | None:
        """Wait until a run ends; return the epoch after which its curve says to stop, or None.

        It is asked of a curve that is complete, too: whether a run is pruned does not depend on
        how fast it was.
        """
        epochs = 0
        while True:
            if self._stop.is_set():
                raise StoppedError
            # Where DVC cannot keep its notes it waits, and may not say why.
            if shutil.disk_usage(FOLDER).free < ROOM:
                raise InputError(
                    f"the disk of {FOLDER} is full; make room, and the same command goes on"
                )
            has_ended = process.poll() is not None
            rows = read_curve(curve)
            if len(rows) > epochs:
                epochs = len(rows)
                epoch = when_to_stop(rows)
                if epoch is not None:
                    return epoch
            if has_ended:
                return None
            self._stop.wait(POLL)

    def _keep(self, folder: Path, run: Run, outcome: Outcome) -> None:
        """Commit what a run made, and give it to the user's repository as an experiment.

        What did not run to its end holds its parameters and its curve: the other results in the
        folder are those of the commit that it started from.
        """
        if outcome.state != "finished":
            curve = folder / CURVE
            lines = curve.read_text().splitlines(keepends=True) if curve.exists() else []
            results = (git("ls-files", "-z", "metrics", "plots", folder=folder) or b"").decode()
            for name in (*results.split("\0")[:-1], "dvc.lock"):
                (folder / name).unlink(missing_ok=True)
            if lines:
                # The header is the line of epoch 0.
                curve.write_text("".join(lines[: (outcome.epochs or len(lines)) + 1]))
        message = run.message_as(outcome.state, outcome.reason)
        commit = ("commit", "--quiet", "--all", "--allow-empty", "--no-gpg-sign")
        successful_git(*commit, f"--message={message}", folder=folder)
        parent = self._head.commit
        reference = f"{EXPERIMENTS}/{parent[:2]}/{parent[2:]}/{run.name_as(outcome.state)}"
        push = ("push", "--quiet", "--force")
        successful_git(*push, self._source, f"HEAD:{reference}", folder=folder)


def experiment_named(name: str) -> bool:
    """Return whether there is an experiment of this name."""
    return any(name == experiment for experiment, _, _ in experiments())


def identity(key: str) -> str:
    """Return what Git knows of the user, ``user.name`` or ``user.email``; experiments need it.

    Raises
    ------
    InputError
        If it knows nothing.
    """
    variable = f"GIT_COMMITTER_{key.removeprefix('user.').upper()}"
    known = (git("config", key) or b"").decode().strip() or os.environ.get(variable, "")
    if not known:
        raise InputError(
            f"Git does not know your {key}, and experiments are commits of yours: "
            f"git config --global {key} ..."
        )
    return known


def read_curve(path: Path) -> list[dict[str, float]]:
    """Return the rows of a curve, as far as it is written; none where there is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError):
        return []


def end_processes(folder: Path) -> None:
    """End what runs in a folder: what a killed search has started takes a moment to notice."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder.resolve()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait()
