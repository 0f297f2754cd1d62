"""A revision in a temporary clone of its own: its data brought there, its stages run again.

The clone has a cache of its own, which is empty: what it makes comes from the data.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from common.console import deferring_interrupts
from common.outputs import remove
from review.revision import Revision, clone, folder_environment, git, run_dvc

if TYPE_CHECKING:
    from dvc.dependency.base import Dependency

USERS_CACHE = "cache-of-the-user"  # a remote of the clone
LAST_LINES = 3  # of a stage that failed


class CannotTellError(Exception):
    """A revision can be neither verified nor refuted here; the message says why."""


@dataclass(frozen=True)
class Workshop:
    """A clone with everything in it that the stages of a revision read.

    Attributes
    ----------
    folder : Path
        The root of the project in it.
    stages : list of str
        The stages of the dvc.yaml of that folder, each after those that it needs.
    contradictions : list of str
        Where what is committed contradicts itself, found without running anything.
    """

    folder: Path
    stages: list[str]
    contradictions: list[str]

    def locked(self) -> dict[str, dict[str, str]]:
        """Return the hash of each output of each stage, by the dvc.lock that is there now."""
        with in_folder(self.folder) as repo:
            stages = {stage.addressing: stage for stage in repo.index.stages}
            return {
                name: {str(out): out.hash_info.value for out in stages[name].outs if out.hash_info}
                for name in self.stages
            }

    def run(self, names: list[str]) -> Iterator[str]:
        """Run stages again, whether DVC thinks that they must or not; yield the lines they print.

        Their outputs are removed before: DVC leaves what is marked `persist`.

        Raises
        ------
        CannotTellError
            If one fails.
        """
        with in_folder(self.folder) as repo:
            for name in names:
                for out in repo.stage.load_one(name=name).outs:
                    remove(Path(out.fs_path))
        command = ("dvc", "repro", "--force", "--single-item", "--no-commit", *names)
        with (
            deferring_interrupts(),
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=folder_environment() | {"PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            printed = []
            for line in process.stdout or ():
                if line.strip():
                    printed.append(line.rstrip())
                    yield printed[-1]
        if process.returncode:
            raise CannotTellError(f"a stage fails here: {' / '.join(printed[-LAST_LINES:])}")

    def bring_committed(self, name: str) -> bool:
        """Bring what a stage read when it was committed; return whether that could be had.

        It is in the user's cache, or in a remote. The other files are again as committed.
        """
        git("checkout", "--quiet", "--force", "after", "--", ".", folder=self.folder)
        with in_folder(self.folder) as repo:
            stage = repo.stage.load_one(name=name)
            deps = {str(dep): dep for dep in stage.deps if dep.hash_info.name == "md5"}

            def missing() -> list[str]:
                return [p for p, dep in deps.items() if not dep.exists or dep.changed_checksum()]

            for remote in (("--remote", USERS_CACHE), ()):
                if missing():
                    run_dvc(Path(), "pull", "--force", *remote, *missing())
            return not missing()


@contextmanager
def workshop(revision: Revision) -> Iterator[Workshop]:
    """Give a temporary clone that has a revision checked out, and the data that it names.

    Raises
    ------
    CannotTellError
        If DVC cannot read its pipeline, or the data cannot be had.
    """
    with clone(revision, revision) as folder:
        git("checkout", "--quiet", "--force", "--detach", "after", folder=folder)
        folder.mkdir(parents=True, exist_ok=True)  # the revision may have no such folder
        if not (folder / "dvc.yaml").is_file():
            raise CannotTellError(f"{revision.name} has no dvc.yaml in this folder")
        try:
            set_up(folder)
            made = prepare(folder, users_folder=Path.cwd())
        except DvcException as error:
            raise CannotTellError(f"DVC cannot read the pipeline: {error}") from None
        yield made


@contextmanager
def in_folder(folder: Path) -> Iterator[Repo]:
    """Give DVC's view of a folder, in which names are relative to it."""
    with chdir(folder), Repo() as repo:
        yield repo


def set_up(folder: Path) -> None:
    """Give the clone a cache of its own, and the user's remotes."""
    for name in ("cache", "tmp"):  # a commit may hold some
        remove(folder / ".dvc" / name)
    with Repo() as users:
        settings = Path(users.dvc_dir or "", "config.local")
        if settings.exists():
            shutil.copy(settings, folder / ".dvc/config.local")
        users_cache = users.cache.local_cache_dir
    # Without `Repo`, which would make a folder for this clone outside of it before it knows better.
    with Config(str(folder / ".dvc")).edit("local") as config:
        config["cache"] = {"dir": str(folder / ".dvc/cache")}
        config["core"]["site_cache_dir"] = str(folder / ".dvc/site")
        config["remote"][USERS_CACHE] = {"url": users_cache}


def prepare(folder: Path, users_folder: Path) -> Workshop:
    """Bring the data; return the clone, with what contradicts itself in it."""
    with in_folder(folder) as repo:
        graph = repo.index.graph
        stages = [
            stage
            for stage in reversed(list(networkx.topological_sort(graph)))
            if stage.path_in_repo == "dvc.yaml" and stage.cmd
        ]
        made = {str(out): out for stage in repo.index.stages for out in stage.outs}
        by_pipeline = {str(out) for stage in stages for out in stage.outs}
        contradictions = [
            f"{stage.addressing} read {dep} of hash {short(dep.hash_info.value)}, and "
            f"{made[str(dep)].stage.addressing} wrote one of "
            f"{short(made[str(dep)].hash_info.value)}"
            for stage in stages
            for dep in stage.deps
            if str(dep) in made and dep.hash_info and dep.hash_info != made[str(dep)].hash_info
        ]
        if not contradictions:
            for dep in (dep for stage in stages for dep in stage.deps):
                if dep.hash_info and str(dep) not in by_pipeline and not git("ls-files", str(dep)):
                    bring(dep, users_folder, made)
        names = [stage.addressing for stage in stages]
        contradictions += stale(repo.status(), names, set(made))
        return Workshop(folder, names, contradictions)


def short(md5: str | None) -> str:
    """Return the part of a hash that is shown."""
    return (md5 or "no hash")[:8]


def bring(dep: "Dependency", users_folder: Path, made: dict[str, Any]) -> None:
    """Bring data that a stage reads into the current folder, from wherever it can be had.

    From the user's folder, as a link; from the user's cache; from the remote; or by the stage
    that makes it. It is taken only where its hash is that of dvc.lock.

    Raises
    ------
    CannotTellError
        If it cannot be had.
    """
    name, target = str(dep), Path(dep.fs_path)
    found = ""

    def is_there() -> bool:
        nonlocal found
        if not target.exists():
            return False
        md5 = dep.get_hash().value
        if md5 == dep.hash_info.value:
            return True
        found = f"; the one that is here has {short(md5)}"
        return False

    if Path(name).is_absolute():
        if is_there():
            return
    else:
        source = users_folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            remove(target)
            target.symlink_to(source.resolve())
            if is_there():
                return
            remove(target)
        ways = [("pull", "--remote", USERS_CACHE, name), ("pull", name)]
        if name in made and made[name].stage.cmd:
            ways.append(("repro", "--single-item", made[name].stage.addressing))
        for words in ways if name in made else ():
            run_dvc(Path(), *words)
            if is_there():
                return
    raise CannotTellError(
        f"the data cannot be had: dvc.lock names {name} of hash {short(dep.hash_info.value)}{found}"
    )


def stale(status: dict[str, Any], stages: list[str], made: set[str]) -> Iterator[str]:
    """Yield what DVC finds in the commit that is not what dvc.lock says was run.

    Parameters
    ----------
    status : dict
        From `Repo.status`.
    stages : list of str
        The stages that count.
    made : set of str
        What DVC keeps: it may be missing.
    """
    for stage in stages:
        for entry in status.get(stage, []):
            if entry == "always changed":  # it is run like all others
                continue
            if not isinstance(entry, dict):
                yield f"{stage}: its command is not the one that dvc.lock says was run"
                continue
            for path, change in entry.get("changed deps", {}).items():
                if isinstance(change, dict):
                    names = ", ".join(change)
                    yield f"{stage}: {names} in {path} is not what dvc.lock says it was run with"
                elif path not in made or change != "deleted":
                    yield f"{stage}: {path} is not the file that dvc.lock says it was run with"
            for path, change in entry.get("changed outs", {}).items():
                if change == "modified":
                    yield f"{stage}: {path} is not the file that dvc.lock says it wrote"
                elif change == "new":
                    yield f"{stage}: dvc.lock does not say that it wrote {path}"


def stage_that_starts(line: str) -> str | None:
    """Return the stage that DVC says it starts in a line, or None.

    Examples
    --------
    >>> stage_that_starts("Running stage 'train':")
    'train'
    """
    found = re.match(r"Running stage '([^']+)'", line)
    return found[1] if found else None
