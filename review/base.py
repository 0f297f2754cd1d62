"""What a revision is compared with if nobody says: the commit where it left the main branch."""

import os

from common.console import InputError
from review.revision import Revision, commit_of, git

REMOTE_HEAD = "refs/remotes/origin/HEAD"


def default_base(revision: Revision) -> Revision:
    """Return the commit at which a revision left the main branch.

    Raises
    ------
    InputError
        If there is no main branch, or the revision is on it.
    """
    main = main_branch()
    base = git("merge-base", main, revision.commit)
    if base is None or base.decode().strip() == revision.commit:
        raise InputError(
            f"every commit of {revision.name} is on the branch {main} too; say what to compare "
            "it with: make review BASE=HEAD~1"
        )
    return Revision(f"merge base with {main}", base.decode().strip())


def main_branch() -> str:
    """Return the main branch, whatever this repository calls it.

    It is the branch that a clone of the remote ``origin`` starts with. Where nobody knows that,
    it is main, then the name that the user has set for new repositories, then master, then the
    only branch there is. A branch of the user's counts before that of the remote.

    Raises
    ------
    InputError
        If there is none of these.
    """
    names = [name.removeprefix("origin/") for name in lines("symbolic-ref", "--short", REMOTE_HEAD)]
    names += ["main", *lines("config", "--get", "init.defaultBranch"), "master"]
    branches = lines("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
    if len(branches) == 1:
        names += branches
    for name in names:
        for folder, shown in (("refs/heads", name), ("refs/remotes/origin", f"origin/{name}")):
            if commit_of(f"{folder}/{name}"):
                return shown
    raise InputError(
        f"no branch is named main or master, or is the only one, and {REMOTE_HEAD} names none: "
        "say what to compare with, make review BASE=HEAD~1, or which one is the main branch, "
        "git remote set-head origin --auto"
    )


def lines(*arguments: str) -> list[str]:
    """Return the lines that git prints; none if it fails."""
    return os.fsdecode(git(*arguments) or b"").splitlines()
