"""What Git holds of one revision: parameters, lock, metrics, tables."""

import io
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
import voluptuous
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from stages.console import InputError
from stages.params import parse_yaml

EXPERIMENTS = "refs/exps"
SEED = "seed"
PREDICTIONS = ["image", "actual", "predicted", "confidence"]


@cache
def folder_environment() -> dict[str, str]:
    """Return the environment in which git and dvc work on the repository of their folder.

    To a hook Git exports the paths of its own repository and index, which come before the
    folder: what is meant for the clone of a review would be done to the user's repository.
    Git lists these variables. It keeps the settings of ``git -c`` for another repository, as
    for a submodule.
    """
    listed = subprocess.check_output(["git", "rev-parse", "--local-env-vars"], text=True).split()
    own = set(listed) - {"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}
    return {name: value for name, value in os.environ.items() if name not in own}


def git(*words: str, folder: Path | None = None) -> bytes | None:
    """Run git without the user's hooks; return what it prints, or None where it fails."""
    words = ("git", "-c", "core.hooksPath=/dev/null", *words)
    done = subprocess.run(words, cwd=folder, env=folder_environment(), capture_output=True)
    return done.stdout if done.returncode == 0 else None


def commit_of(name: str) -> str | None:
    """Return the full hash of a commit by any name that Git knows, or None."""
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.decode().strip() if found else None


def experiments() -> list[tuple[str, str, str]]:
    """Return name, commit and parent of every DVC experiment in this repository.

    DVC keeps an experiment as ``refs/exps/<2 digits>/<38 digits of its parent>/<name>``;
    other references below ``refs/exps`` are its own bookkeeping.
    """
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b""
    found = []
    for line in os.fsdecode(listed).splitlines():
        commit, _, name = line.partition(" ")
        parts = name.split("/", 4)
        if len(parts) == 5 and len(parts[3]) == 38:
            found.append((parts[4], commit, parts[2] + parts[3]))
    return found


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
        return git("cat-file", "blob", f"{self.commit}:./{path}")  # of this folder, not Git's root

    def _mapping(self, path: str) -> dict:
        content = parse_yaml(self.read(path) or b"", f"{path} of {self.name}")
        return content if isinstance(content, dict) else {}

    def table(self, path: str, columns: list[str]) -> pd.DataFrame | None:
        """Return a CSV file as a table of text, or None if there is none with these columns."""
        content = self.read(path)
        if content is None:
            return None
        try:
            table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path} of {self.name} cannot be read") from None
        return table if set(columns) <= set(table.columns) else None

    @cached_property
    def stages(self) -> dict[str, dict]:
        """The stages of dvc.lock: ``cmd``, ``deps``, ``params``, ``outs`` of each.

        Empty where DVC takes it for no lock: `stale_stages` finds that, too.
        """
        lock = self._mapping("dvc.lock")
        try:
            return COMPILED_LOCKFILE_SCHEMA(lock).get("stages", {})
        except voluptuous.Invalid:
            return {}

    @cached_property
    def metrics(self) -> dict[str, object]:
        """The values of metrics/evaluate.json; empty where there are none."""
        return self._mapping("metrics/evaluate.json")

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the test images, from 0 to 1; None where it is not known."""
        value = self.metrics.get("test_accuracy")
        return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """A row a test image, in `PREDICTIONS`; None where there is none."""
        table = self.table("plots/predictions.csv", PREDICTIONS)
        return None if table is None or table.empty else table

    @cached_property
    def seed(self) -> int | None:
        """The seed that its results were made with."""
        for stage in self.stages.values():
            for values in stage.get("params", {}).values():
                if isinstance(values.get(SEED), int):
                    return values[SEED]
        return None

    @cached_property
    def setting(self) -> dict[str, dict]:
        """All that its results come from but the seed: commands, code, data, parameters."""
        made = {out["path"] for stage in self.stages.values() for out in stage.get("outs", [])}
        return {
            name: {
                "cmd": stage.get("cmd"),
                "deps": {
                    dep["path"]: dep.get("md5")
                    for dep in stage.get("deps", [])
                    if dep["path"] not in made
                },
                "params": {
                    path: {key: value for key, value in values.items() if key != SEED}
                    for path, values in stage.get("params", {}).items()
                },
            }
            for name, stage in self.stages.items()
        }

    def seeds(self) -> dict[int, "Revision"]:
        """Return the revisions that differ from this one in the seed alone, by seed.

        They are this one, and of the experiments and their parents those of the same
        `setting`.
        """
        others = {self.commit: self}
        for name, commit, parent in experiments():
            others |= {commit: Revision(name, commit), parent: Revision(parent[:7], parent)}
        found: dict[int, Revision] = {}
        for other in others.values():
            with suppress(InputError):  # nobody asked for those of which a file cannot be read
                if None not in (other.seed, other.accuracy) and other.setting == self.setting:
                    found.setdefault(other.seed, other)
        return dict(sorted(found.items()))


def resolve(name: str) -> Revision:
    """Return the revision that a name means: anything Git knows, or a DVC experiment.

    Raises
    ------
    InputError
        If it is neither, or the name of several experiments.
    """
    commit = commit_of(name)
    if commit:
        return Revision(name, commit)
    found = [commit for known, commit, _ in experiments() if known == name]
    if len(found) == 1:
        return Revision(name, found[0])
    if found:
        raise InputError(
            f"{name} is the name of {len(found)} experiments; take one of their commits: "
            + ", ".join(commit[:10] for commit in found)
        )
    raise InputError(
        f"{name} is no revision of this repository; it must be a branch, tag, commit or experiment"
    )


def default_base(revision: Revision) -> Revision:
    """Return the commit at which a revision left the main branch.

    Raises
    ------
    InputError
        If there is no main branch, or the revision is on it.
    """
    for main in ("main", "origin/main"):
        if commit_of(main) is None:
            continue
        base = git("merge-base", main, revision.commit)
        if base is None or base.decode().strip() == revision.commit:
            raise InputError(
                f"{revision.name} has nothing that {main} has not; say what to compare it with: "
                "make review BASE=HEAD~1"
            )
        return Revision(f"merge base with {main}", base.decode().strip())
    raise InputError("there is no branch main; say what to compare with: make review BASE=HEAD~1")


@contextmanager
def clone(before: Revision, after: Revision) -> Iterator[Path]:
    """Give a temporary clone for DVC to work in, with the tags ``before`` and ``after``.

    So that nothing is written into the repository, and nothing pulled. It shares the
    repository's objects; it holds no data.
    """
    with tempfile.TemporaryDirectory(prefix="review-") as scratch:
        source = (git("rev-parse", "--path-format=absolute", "--git-common-dir") or b"").rstrip()
        words = ("clone", "--quiet", "--shared", "--no-checkout", os.fsdecode(source), scratch)
        if git(*words) is None:
            raise InputError(
                "Git cannot clone this repository; is it shallow? git fetch --unshallow"
            )
        for tag, revision in (("before", before), ("after", after)):
            git("tag", "--no-sign", tag, revision.commit, folder=Path(scratch))
        # Where the project is a folder of a larger repository, DVC works in that folder.
        folder = Path(scratch, os.fsdecode((git("rev-parse", "--show-prefix") or b"").rstrip()))
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def dvc(folder: Path, *words: str) -> str:
    """Run dvc in a clone; return what it printed, "" where it fails."""
    done = run_dvc(folder, *words)
    return done.stdout if done.returncode == 0 else ""


def run_dvc(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run dvc in a clone, whether it fails or not."""
    words = ("dvc", *words)
    return subprocess.run(
        words, cwd=folder, env=folder_environment(), capture_output=True, text=True
    )


def stale_stages(folder: Path, tag: str) -> list[str] | None:
    """Return the stages that dvc would run at a tag: those whose lock is not of its code.

    Returns
    -------
    list of str or None
        None where dvc cannot tell, as for a revision without a pipeline.
    """
    git("checkout", "--quiet", "--force", "--detach", tag, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)  # a revision may not have the folder
    done = run_dvc(folder, "repro", "--allow-missing", "--dry")
    # The dry run of a stage fails where the stage would run and its data is not in Git.
    stale = re.findall(
        r"(?:Running stage|failed to reproduce) '([^']+)'", done.stdout + done.stderr
    )
    if not stale and "up to date" not in done.stdout:
        return None
    return list(dict.fromkeys(stale))
