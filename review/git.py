"""What asks Git: nothing else is imported here, so that the first checks of a program are quick."""

import os
import shlex
import subprocess
from functools import cache
from pathlib import Path

from common.console import InputError


@cache
def folder_environment() -> dict[str, str]:
    """Return the environment in which git and dvc work on the repository of their folder.

    Git starts a hook with variables that name the user's repository and index, and these
    variables count more than the folder. With them, a command that is meant for the clone of
    a review would change the user's repository. Git itself lists them. The two that hold the
    settings of ``git -c`` are kept, as Git keeps them for a submodule.

    Raises
    ------
    InputError
        If there is no Git, or it cannot read its settings.
    """
    try:
        done = subprocess.run(
            ("git", "rev-parse", "--local-env-vars"), capture_output=True, text=True
        )
    except FileNotFoundError:
        raise InputError("there is no program `git` on the PATH; install Git") from None
    if done.returncode:  # no repository is needed for it, but settings that can be read
        raise InputError(f"Git does not run: {' '.join(done.stderr.split())}")
    removed = set(done.stdout.split()) - {"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}
    return {name: value for name, value in os.environ.items() if name not in removed}


def run_git(
    *arguments: str, folder: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git without the user's hooks and catch what it prints; it may fail."""
    command = ("git", "-c", "core.hooksPath=/dev/null", *arguments)
    return subprocess.run(
        command, cwd=folder, env=folder_environment(), input=stdin, capture_output=True
    )


def git(*arguments: str, folder: Path | None = None, stdin: bytes = b"") -> bytes | None:
    """Run git without the user's hooks; return what it prints, or None if it fails."""
    done = run_git(*arguments, folder=folder, stdin=stdin)
    return done.stdout if done.returncode == 0 else None


def successful_git(*arguments: str, folder: Path | None = None) -> bytes:
    """Run git without the user's hooks; return what it prints.

    Raises
    ------
    InputError
        If it fails, with what it says.
    """
    done = run_git(*arguments, folder=folder)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise InputError(f"`git {shlex.join(arguments)}` failed: {said}")
    return done.stdout


def check_place() -> None:
    """Check that the current folder is the root of a project, which Git and DVC keep.

    Raises
    ------
    InputError
        If it is not.
    """
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    successful_git("rev-parse", "--git-dir")
    here = Path.cwd()
    if not any((folder / ".dvc").is_dir() for folder in (here, *here.parents)):
        raise InputError("there is no .dvc here: this is no repository of DVC; clone it with Git")
