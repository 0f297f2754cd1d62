"""What Git holds of one revision, and a temporary clone in which DVC compares two of them."""

import io
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import voluptuous
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from common.console import InputError
from common.params import PARAMS, check_keys, parse_yaml
from review.git import folder_environment, git, successful_git
from review.predictions import PREDICTIONS, PREDICTIONS_FILE, fault_of

EXPERIMENTS = "refs/exps"
SEED = "seed"
THREADS = "threads"
NO_SETTING = (SEED, THREADS)  # the luck of a training, and its machine
PROVENANCE = "metrics/provenance.json"
# Where else than among the experiments a name may stand. Git takes the first that there is.
KINDS = {"branch": "refs/heads", "tag": "refs/tags", "branch of a remote": "refs/remotes"}
HASH = re.compile(r"[0-9a-f]{4,39}")  # the beginning of one: Git takes no less than four digits
GITS_OWN = re.compile(r"HEAD|[0-9a-f]{40}")
Stages = dict[str, dict[str, Any]]  # of dvc.lock, by name: ``cmd``, ``deps``, ``params``, ``outs``


def commit_of(name: str) -> str | None:
    """Return the full hash of a commit by any name that Git knows, or None."""
    printed = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return printed.decode().strip() if printed else None


def experiments() -> list[tuple[str, str, str]]:
    """Return name, commit and parent of every DVC experiment in this repository.

    DVC keeps an experiment as ``refs/exps/<2 digits>/<38 digits>/<name>``, where the digits
    are the hash of its parent. Other references below ``refs/exps`` are DVC's own notes.
    """
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b""
    names_commits_parents = []
    for line in os.fsdecode(listed).splitlines():
        commit, _, reference = line.partition(" ")
        parts = reference.split("/", 4)
        if len(parts) == 5 and len(parts[3]) == 38:
            names_commits_parents.append((parts[4], commit, parts[2] + parts[3]))
    return names_commits_parents


@dataclass(frozen=True)
class Revision:
    """One side of a comparison.

    Attributes
    ----------
    name : str
        What the user called it.
    commit : str
        Its full hash.
    """

    name: str
    commit: str

    def read(self, path: str) -> bytes | None:
        """Return a file's content at this revision, or None if it has no such file."""
        # With "./" the path starts in the current folder, without it in the root of Git.
        return git("cat-file", "blob", f"{self.commit}:./{path}")

    def mapping(self, path: str) -> dict[str, Any]:
        """Return a YAML or JSON file as a mapping, empty if there is none or it is another kind."""
        content = parse_yaml(self.read(path) or b"", f"{path} of {self.name}")
        return content if isinstance(content, dict) else {}

    def table(self, path: str, columns: list[str]) -> pd.DataFrame | None:
        """Return a CSV file as a table of text, or None if no file has these columns.

        Raises
        ------
        InputError
            If it is not a CSV file.
        """
        content = self.read(path)
        if content is None:
            return None
        try:
            table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path} of {self.name} cannot be read") from None
        return table if set(columns) <= set(table.columns) else None

    def check_params(self) -> None:
        """Check that each key of params.yaml is one that a stage of this revision reads.

        Raises
        ------
        InputError
            If there is another: it has changed nothing of the results.
        """
        pipeline = self.mapping("dvc.yaml")
        if pipeline:
            check_keys(self.mapping(str(PARAMS)), pipeline, f"{PARAMS} of {self.name}")

    @cached_property
    def stages(self) -> Stages:
        """The stages of dvc.lock: ``cmd``, ``deps``, ``params`` and ``outs`` of each.

        Empty if the file is not what DVC writes; `review.current` then finds that DVC cannot
        read the pipeline.
        """
        lock = self.mapping("dvc.lock")
        try:
            return COMPILED_LOCKFILE_SCHEMA(lock).get("stages", {})
        except voluptuous.Invalid:
            return {}

    @cached_property
    def metrics(self) -> dict[str, object]:
        """The values of metrics/evaluate.json; empty if there are none."""
        return self.mapping("metrics/evaluate.json")

    @property
    def split(self) -> str:
        """Which images it was scored on: ``test`` or ``validation``."""
        return "validation" if "validation_accuracy" in self.metrics else "test"

    @property
    def accuracy(self) -> float | None:
        """The accuracy on those images, from 0 to 1; None if it is not known."""
        value = self.metrics.get(f"{self.split}_accuracy")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= 1 else None

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """A row for each test image, with the columns `PREDICTIONS`; None if there is no row.

        Raises
        ------
        InputError
            If a cell holds what no run writes.
        """
        table = self.table(PREDICTIONS_FILE, PREDICTIONS)
        if table is None or table.empty:
            return None
        fault = fault_of(table)
        if fault:
            raise InputError(f"{PREDICTIONS_FILE} of {self.name}: {fault}")
        return table

    @cached_property
    def seed(self) -> int | None:
        """The seed that its results were made with, or None if dvc.lock has none."""
        seed = self.parameter(SEED)
        return seed if isinstance(seed, int) else None

    def parameter(self, name: str) -> object:
        """Return the value of a parameter that its results were made with, by dvc.lock."""
        files = (stage.get("params", {}).values() for stage in self.stages.values())
        return next((values[name] for of in files for values in of if name in values), None)

    @cached_property
    def setting(self) -> Stages:
        """Everything that its results come from, except the seed and the number of threads.

        That is the command, the code, the data and the parameters of each stage. What another
        stage has made is left out, because the seed changes it.
        """
        return self.setting_but()

    def setting_but(self, *parameters: str) -> Stages:
        """Return the `setting`, with further parameters left out."""
        made = {out["path"] for stage in self.stages.values() for out in stage.get("outs", [])}
        left_out = (*NO_SETTING, *parameters)
        return {
            name: {
                "cmd": stage.get("cmd"),
                "deps": {
                    dep["path"]: dep.get("md5")
                    for dep in stage.get("deps", [])
                    if dep["path"] not in made
                },
                "params": {
                    path: {key: value for key, value in values.items() if key not in left_out}
                    for path, values in stage.get("params", {}).items()
                },
            }
            for name, stage in self.stages.items()
        }

    def data_hashes(self) -> list[object]:
        """Return the hashes of the data that `load` read, by dvc.lock."""
        dependencies = self.stages.get("load", {}).get("deps", [])
        hashes = [dep.get("md5") for dep in dependencies if not dep["path"].endswith(".py")]
        return sorted(hashes, key=str)

    def seeds(self) -> dict[int, "Revision"]:
        """Return the revisions of the same setting, by seed.

        It looks at this revision, at all experiments and at their parents, and takes those
        that have the same `setting`.
        """
        candidates = {self.commit: self}
        for _, commit, parent in experiments():
            candidates |= {commit: unnamed(commit), parent: unnamed(parent)}
        by_seed: dict[int, Revision] = {}
        for candidate in candidates.values():
            # Nobody asked for a candidate of which a file cannot be read: it is passed over.
            with suppress(InputError):
                seed = candidate.seed
                if seed is None or candidate.accuracy is None:
                    continue
                if candidate.setting == self.setting:
                    by_seed.setdefault(seed, candidate)
        return dict(sorted(by_seed.items()))

    def accuracies_by_seed(self) -> dict[int, float]:
        """Return the test accuracy of each of the `seeds`."""
        return accuracies_of(self.seeds())


@cache
def unnamed(commit: str) -> Revision:
    """Return a commit that the user did not name. Its dvc.lock, which takes long, is read once."""
    return Revision(commit[:7], commit)


def accuracies_of(seeds: dict[int, Revision]) -> dict[int, float]:
    """Return the test accuracy of each of some `Revision.seeds`."""
    accuracies = {seed: revision.accuracy for seed, revision in seeds.items()}
    return {seed: value for seed, value in accuracies.items() if value is not None}


def resolve(name: str) -> Revision:
    """Return the revision that a name stands for: a name that Git knows, or an experiment.

    Raises
    ------
    InputError
        If it is neither, or if it stands for several commits: nobody then knows which one is
        meant. HEAD and whole hashes are always Git's.
    """
    commit = commit_of(name)
    if commit and GITS_OWN.fullmatch(name):
        return Revision(name, commit)
    meant = meanings(name)
    commits = set(meant.values())
    if not commits:
        raise InputError(
            f"{name} is no revision of this repository; it must be a branch, tag, commit or "
            "experiment"
        )
    if len(commits) > 1:
        said = ", ".join(f"{what} {commit}" for what, commit in meant.items())
        raise InputError(f"{name} has {len(commits)} meanings; give the hash of one: {said}")
    return Revision(name, commits.pop())


def meanings(name: str) -> dict[str, str]:
    """Return the full hash of each commit that a name may stand for, by what it then is."""
    meant: dict[str, str] = {}
    for kind, folder in KINDS.items():
        commit = commit_of(f"{folder}/{name}")
        if commit:
            meant[f"the {kind}"] = commit
    if HASH.fullmatch(name):
        printed = git("rev-parse", f"--disambiguate={name}") or b""
        commits = [found for found in printed.decode().split() if commit_of(found) == found]
        meant |= {f"the commit{number(at)}": found for at, found in enumerate(commits)}
    found = commit_of(name)
    if found and found not in meant.values():  # HEAD~1, a commit of a reflog, and what else it is
        meant["the commit"] = found
    own = [commit for experiment, commit, _ in experiments() if experiment == name]
    return meant | {f"the experiment{number(at)}": commit for at, commit in enumerate(own)}


def number(index: int) -> str:
    """Write the number of a thing; nothing of the first, which often is the only one."""
    return f" no. {index + 1}" if index else ""


@contextmanager
def clone(before: Revision, after: Revision) -> Iterator[Path]:
    """Give a temporary clone in which DVC can work, with the tags ``before`` and ``after``.

    In it DVC writes nothing into the user's repository and downloads nothing. The clone shares
    the objects of the repository and holds no data.
    """
    with tempfile.TemporaryDirectory(prefix="review-") as temporary:
        source = (git("rev-parse", "--path-format=absolute", "--git-common-dir") or b"").rstrip()
        options = ("--quiet", "--shared", "--no-checkout")
        try:
            successful_git("clone", *options, os.fsdecode(source), temporary)
        except InputError as error:
            raise InputError(f"{error}; if it is shallow: git fetch --unshallow") from None
        for tag, revision in (("before", before), ("after", after)):
            git("tag", "--no-sign", tag, revision.commit, folder=Path(temporary))
        # If the project is a folder of a larger repository, DVC works in that folder.
        prefix = os.fsdecode((git("rev-parse", "--show-prefix") or b"").rstrip())
        folder = Path(temporary, prefix)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def run_dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dvc in a folder and catch what it prints; it may fail."""
    return subprocess.run(
        ("dvc", *arguments),
        cwd=folder,
        env=folder_environment(),
        capture_output=True,
        text=True,
    )


def read_dvc_json(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a dvc command that prints a JSON mapping, and return that; empty if dvc fails."""
    done = run_dvc(folder, *arguments, "--json")
    if done.returncode != 0 or not done.stdout:
        return {}
    return json.loads(done.stdout)
