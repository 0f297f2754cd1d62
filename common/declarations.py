"""What dvc.yaml declares for the stage that runs, and what of it was changed meanwhile.

DVC hashes the parameters, code and data of a stage after it has ended [1]_. Of what was edited
while the stage ran, it would record the new state as what made the outputs, and its run cache
would keep that. So a stage that DVC started remembers at its start all that is declared for it,
and looks at it again at its end.

References
----------
.. [1] https://github.com/treeverse/dvc/issues/11058
"""

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

PIPELINE = Path("dvc.yaml")
PARAMS = "params.yaml"
SMALL = 1_000_000  # bytes: of smaller files the content is remembered
REFERENCE = re.compile(r"\$\{(\w+)[^}]*\}")
LISTED = 5  # changes that a message names

FileState = tuple[int, int, int]  # what DVC tells files apart by: inode, time of change, size


@dataclass
class Declared:
    """What is declared for a stage, as it was when the stage began.

    Attributes
    ----------
    stage : str
        The stage as DVC finds it from the root of the repository, such as ``dvc.yaml:train``.
    files : dict of str to dict
        For each dependency the state of its files, by their path.
    contents : dict of str to bytes
        The content of small dependencies, and of files of parameters.
    params : dict of str to list of str
        The keys that the stage depends on, by file; none for the whole file.
    warned : bool
        Whether a warning was given.
    """

    stage: str
    files: dict[str, dict[str, FileState]]
    contents: dict[str, bytes | None]
    params: dict[str, list[str]]
    warned: bool = False


begun: Declared | None = None  # None: this process is no stage that DVC started


def texts_of(path: Path) -> dict[str, Any]:
    """Return a YAML file, which DVC has read before, with every value as the text it is."""
    try:
        texts = YAML(typ="base").load(path.read_bytes())
    except (OSError, ValueError, YAMLError) as error:
        sys.exit(f"error: {path} cannot be read any more: {' '.join(str(error).split())}")
    return texts if isinstance(texts, dict) else {}


def begin(name: str, module: str) -> None:
    """Remember what is declared for a stage, before the stage reads any of it.

    Parameters
    ----------
    name : str
        The stage as DVC calls it in the environment, relative to wherever DVC was started.
    module : str
        The program of the stage, such as ``stages.train``: the dvc.yaml is in the folder of its
        package, if there is one, or at the root.
    """
    global begun
    own = Path(*module.split(".")[:-1]) / PIPELINE
    path = own if own.is_file() else PIPELINE
    name = name.rpartition(":")[2]
    if "@" in name:  # one of `foreach` or `matrix`, whose values DVC alone knows
        print(f"{name}: {path} declares it by a template: changes meanwhile are not seen")
    stage = texts_of(path)["stages"].get(name, {})
    values = texts_of(Path(PARAMS))
    deps = [next(iter(dep)) if isinstance(dep, dict) else dep for dep in stage.get("deps", [])]
    deps = [REFERENCE.sub(lambda found: str(values.get(found[1])), dep) for dep in deps]
    params: dict[str, list[str]] = {}
    for one in stage.get("params", []):
        for file, keys in one.items() if isinstance(one, dict) else [(PARAMS, [one])]:
            params.setdefault(file, []).extend(keys or [])
    files = {dep: states_of(dep) for dep in deps}
    small = [dep for dep in deps if files[dep].keys() == {dep} and files[dep][dep][2] <= SMALL]
    contents = {name: content_of(name) for name in [*small, *params]}
    begun = Declared(f"{path}:{name}", files, contents, params)


def states_of(path: str) -> dict[str, FileState]:
    """Return the state of each file at or below a path, but for hidden ones, which no stage reads.

    Links to files are followed, as DVC does; it follows no link to a folder below the path.
    """
    paths = [path]
    if Path(path).is_dir():
        paths = [
            os.path.join(parent, name)  # noqa: PTH118  ten times as fast, for 300,000 files
            for parent, _, names in os.walk(path)
            for name in names
            if not name.startswith(".")
        ]
    states = {}
    for one in paths:
        try:
            status = os.stat(one)  # noqa: PTH116
        except OSError:  # it is gone, or a link that leads nowhere
            continue
        states[one] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return states


def content_of(path: str) -> bytes | None:
    """Return the content of a file; None where there is none."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def note_params(path: Path, content: bytes) -> None:
    """Remember what a stage has read as its parameters: its imports may have taken seconds."""
    if begun and str(path) in begun.contents:
        begun.contents[str(path)] = content


def changes() -> list[str]:
    """Return what of all that is declared was changed since the stage began; a phrase each."""
    if not begun:
        return []
    found = []
    for file, keys in begun.params.items():
        content = content_of(file)
        if begun.contents[file] != content:
            found += changed_keys(file, keys, begun.contents[file], content)
    for dep, before in begun.files.items():
        now = states_of(dep)
        if before == now or (dep in begun.contents and begun.contents[dep] == content_of(dep)):
            continue
        names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
        more = f" and {len(names) - 1} more files of {dep}" if len(names) > 1 else ""
        found.append(f"{names[0]}{more}")
    return found


def changed_keys(file: str, keys: list[str], before: bytes | None, now: bytes | None) -> list[str]:
    """Return the keys of a file that have other values, with both of them; or the file itself."""
    try:
        old, new = (YAML(typ="safe").load(content or b"") for content in (before, now))
    except (ValueError, LookupError, YAMLError):
        return [file]
    if not (keys and isinstance(old, dict) and isinstance(new, dict)):
        return [file]
    return [
        f"{key} in {file} (it was {old.get(key)!r}, and is {new.get(key)!r})"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def warn_of_changes() -> None:
    """Say what was changed since the stage began, once, while it may still be undone."""
    changed = changes()
    if begun and changed and not begun.warned:
        begun.warned = True
        stage = begun.stage.rpartition(":")[2]
        print(
            f"{stage}: warning: {described(changed)}: unless that is undone before the stage ends, "
            "its results will not count",
            flush=True,
        )


def described(changed: list[str]) -> str:
    """Say what was changed while the stage ran; of much, the first."""
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    return f"changed while this stage ran: {', '.join(changed[:LISTED])}{more}"


def declared_keys(pipeline: dict[str, Any]) -> set[str] | None:
    """Return the keys of params.yaml that a dvc.yaml names: those that some stage reads.

    They stand under ``params`` of a stage, or as ``${key}``. None if a stage reads the whole file.
    """
    keys = set(REFERENCE.findall(json.dumps(pipeline)))
    for stage in (pipeline.get("stages") or {}).values():
        for one in stage.get("do", stage).get("params") or []:
            if isinstance(one, dict) and PARAMS in one and not one[PARAMS]:
                return None
            keys.update(one.get(PARAMS, []) if isinstance(one, dict) else [one])
    return {key.partition(".")[0] for key in keys}
