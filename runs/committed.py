"""Check that what is to be run is what is committed."""

import os
from typing import TYPE_CHECKING

from common.console import InputError
from common.params import PARAMS
from review.git import git, successful_git

if TYPE_CHECKING:
    from review.revision import Revision

NAMED = 10  # files


def committed_params() -> bytes:
    """Return params.yaml as the last commit has it."""
    content = git("cat-file", "blob", f"HEAD:./{PARAMS}")
    if content is None:
        raise InputError(f"HEAD has no {PARAMS}; run from the root of the repository")
    return content


def check_tree(*exceptions: str) -> None:
    """Check that no file that Git keeps differs from the last commit.

    It takes a moment. A program asks before it imports DVC, Optuna or TensorFlow.

    Parameters
    ----------
    exceptions : str
        Paths of files that may differ.

    Raises
    ------
    InputError
        If others do, with their names.
    """
    form = ("--porcelain", "-z", "--no-renames", "--untracked-files=no")
    excluded = [f":(exclude){path}" for path in exceptions]
    printed = os.fsdecode(successful_git("status", *form, "--", ":/", *excluded))
    changed = [line[3:] for line in printed.split("\0")[:-1]]
    if changed:
        more = f" and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
        raise InputError(
            f"the working tree differs from HEAD in {', '.join(changed[:NAMED])}{more}; "
            "commit or undo that first"
        )


def check_lock(head: "Revision") -> None:
    """Check that the committed dvc.lock is that of the committed code and parameters.

    Raises
    ------
    InputError
        If it is not, or a parameter is one that no stage reads.
    """
    head.check_params()
    # Not at the top of the file: they import pandas and DVC, which take a second.
    from review.current import check_tag
    from review.revision import clone

    with clone(head, head) as folder:
        check = check_tag(folder, "after")
    if not check.is_current:
        raise InputError(
            "the committed dvc.lock does not belong to the committed code and parameters; run "
            "`dvc repro` and commit what it writes"
        )
