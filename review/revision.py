"""What Git holds of one revision: parameters, lock, metrics, tables."""

import io
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from stages.console import InputError
from stages.params import parse_yaml

EXPERIMENTS = "refs/exps"
SEED = "seed"


def git(*words: str, folder: Path | None = None) -> bytes | None:
    """Run git; return what it prints, or None where it fails."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True)
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
    for line in listed.decode().splitlines():
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
        return git("cat-file", "blob", f"{self.commit}:{path}")

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
        """The stages of dvc.lock: ``cmd``, ``deps``, ``params``, ``outs`` of each."""
        return self._mapping("dvc.lock").get("stages", {})

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of metrics/evaluate.json; empty where there are none."""
        return self._mapping("metrics/evaluate.json")

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the test images, from 0 to 1; None where it is not known."""
        value = self.metrics.get("test_accuracy")
        return float(value) if isinstance(value, int | float) else None

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """A row a test image: image, actual, predicted, confidence."""
        return self.table("plots/predictions.csv", ["image", "actual", "predicted", "confidence"])

    @cached_property
    def seed(self) -> int | None:
        """The seed that its results were made with."""
        for stage in self.stages.values():
            for values in stage.get("params", {}).values():
                if SEED in values:
                    return values[SEED]
        return None

    @cached_property
    def setting(self) -> str:
        """All that its results come from but the seed: commands, code, data, parameters."""
        made = {out["path"] for stage in self.stages.values() for out in stage.get("outs", [])}
        return json.dumps(
            {
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
            },
            sort_keys=True,
        )

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
        folder = Path(scratch)
        source = (git("rev-parse", "--path-format=absolute", "--git-common-dir") or b"").decode()
        words = ("clone", "--quiet", "--shared", "--no-checkout", source.strip(), scratch)
        if git(*words) is None:
            raise InputError(
                "Git cannot clone this repository; is it shallow? git fetch --unshallow"
            )
        for tag, revision in (("before", before), ("after", after)):
            git("tag", "--no-sign", tag, revision.commit, folder=folder)
        yield folder


def dvc(folder: Path, *words: str) -> str:
    """Run dvc in a clone; return what it printed, "" where it fails."""
    done = subprocess.run(["dvc", *words], cwd=folder, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def stale_stages(folder: Path, tag: str) -> list[str] | None:
    """Return the stages that dvc would run at a tag: those whose lock is not of its code.

    Returns
    -------
    list of str or None
        None where dvc cannot tell, as for a revision without a pipeline.
    """
    git("checkout", "--quiet", "--force", "--detach", tag, folder=folder)
    words = ["dvc", "repro", "--allow-missing", "--dry"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    # The dry run of a stage fails where the stage would run and its data is not in Git.
    stale = re.findall(
        r"(?:Running stage|failed to reproduce) '([^']+)'", done.stdout + done.stderr
    )
    if not stale and "up to date" not in done.stdout:
        return None
    return list(dict.fromkeys(stale))
