"""What is checked and named before an experiment of DVC is started."""

import os
import re
import tempfile
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import YAMLError

from common.console import InputError
from common.params import PARAMS
from review.git import git
from review.revision import experiments, resolve
from runs.committed import committed_params
from runs.recipe import parse_mapping

NAME_LENGTH = 100  # characters, as Git keeps the name of an experiment as the name of a file


def free_name(description: str) -> str:
    """Return a name that no experiment has which started from HEAD.

    It is the description, as far as Git allows its characters in a name. If an experiment of that
    name exists, a number is added.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+|\.\.+", "-", description)[:NAME_LENGTH].strip("-.")
    head = resolve("HEAD").commit
    taken = {experiment for experiment, _, parent in experiments() if parent == head}
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def changed_params(origin: str, changes: list[str]) -> dict[str, object]:
    """Return the committed parameters with changes, as DVC applies them.

    Parameters
    ----------
    origin : str
        Where the changes come from, for the error.
    changes : list of str
        ``KEY=VALUE`` each.

    Raises
    ------
    InputError
        If one is not of that form, or its key is not in params.yaml.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PARAMS)
        path.write_bytes(committed_params())
        for change in changes:
            try:
                apply_overrides(path, [change])
            except (DvcException, YAMLError) as error:
                reason = str(error.__cause__ or error).splitlines()[0]
                raise InputError(
                    f"{origin}: {change!r} must be KEY=VALUE, with a key and a value as in "
                    f"{PARAMS}: {reason}"
                ) from None
        return parse_mapping(path.read_bytes(), origin)


def check_identity() -> None:
    """Check that Git knows the user where DVC needs it, to save the state of a changed workspace.

    Raises
    ------
    InputError
        If it does not.
    """
    for key in ("name", "email"):
        known = git("config", f"user.{key}") or os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        if not known and git("status", "--porcelain", "--untracked-files=no"):
            raise InputError(
                f"Git does not know your {key}, and dvc needs it where the workspace differs from "
                f"HEAD: git config --global user.{key} ..."
            )
