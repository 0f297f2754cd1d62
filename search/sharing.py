"""Share the experiments of a search with other machines, through the Git remote `origin`.

DVC's remote, which is that of the repository, gets the files that Git does not keep.
"""

import subprocess
import time

from dvc.repo import Repo

from common.console import InputError
from review.git import folder_environment
from review.revision import EXPERIMENTS, experiments

REMOTE = "origin"
LOCKED = "Unable to acquire lock"


def check_remotes() -> None:
    """Check that there are a Git remote and a DVC remote, where several machines find each other.

    Raises
    ------
    InputError
        If one is missing, or Git's does not answer.
    """
    list_shared()
    with Repo() as repo:
        has_remote = bool(repo.config["core"].get("remote"))
    if not has_remote:
        raise InputError(
            "with STORAGE, the files of experiments are pushed to a DVC remote, and this "
            "repository has none: dvc remote add --default storage ..."
        )


def list_shared() -> dict[str, str]:
    """Return the reference of each experiment in the Git remote, by the name of the experiment.

    Raises
    ------
    InputError
        If there is no such remote, or it does not answer.
    """
    listed = run("git", "ls-remote", "--refs", REMOTE, f"{EXPERIMENTS}/??/*/*")
    references = [line.split("\t")[1] for line in listed.splitlines()]
    return {reference.split("/", 4)[4]: reference for reference in references}


def push(search: str) -> None:
    """Push the experiments of a search that the remote lacks, with what DVC's cache has of them.

    Parameters
    ----------
    search : str
        The name of the search, with which the names of its experiments begin.

    Raises
    ------
    InputError
        If one of the two remotes cannot be used.
    """
    missing = sorted(own_experiments(search) - list_shared().keys())
    if missing:
        run("dvc", "exp", "push", "--quiet", REMOTE, *missing)


def fetch(search: str) -> None:
    """Get the experiments of a search that other machines pushed, as far as Git keeps them.

    Parameters
    ----------
    search : str
        The name of the search.

    Raises
    ------
    InputError
        If the remote cannot be used.
    """
    own = own_experiments(search)
    missing = [
        f"{reference}:{reference}"
        for name, reference in list_shared().items()
        if name.startswith(f"{search}-") and name not in own
    ]
    if missing:
        run("git", "fetch", "--quiet", REMOTE, *missing)


def own_experiments(search: str) -> set[str]:
    """Return the names of the experiments of a search that this clone has."""
    return {name for name, _, _ in experiments() if name.startswith(f"{search}-")}


def run(*command: str) -> str:
    """Run git or dvc, and wait where another dvc holds the lock of the repository.

    Returns
    -------
    str
        What it prints.

    Raises
    ------
    InputError
        If it fails, with what it says.
    """
    environment = folder_environment()
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        if LOCKED not in done.stderr:
            said = " ".join(done.stderr.split()).removeprefix("ERROR: ")
            raise InputError(
                f"with STORAGE, experiments are shared through the Git remote {REMOTE} and the "
                f"remote of DVC, and `{' '.join(command[:3])}` failed: {said}"
            )
        time.sleep(1)
