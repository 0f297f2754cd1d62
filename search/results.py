"""Read the results of every commit and experiment of this repository, quickly, from Git alone."""

import io
import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import pandas as pd

from common.console import InputError
from common.params import PARAMS, parse_yaml
from review.git import folder_environment, git
from review.revision import EXPERIMENTS, NO_SETTING, SEED

EVALUATE = "metrics/evaluate.json"
METRICS = ("metrics/train.json", EVALUATE, "metrics/define.json")
CURVE = "plots/training.csv"
CURVE_COLUMNS = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
# What a search writes into the message of an experiment's commit, a line each, as Git's trailers.
TRAILERS = ("Search", "Settings", "Role", "Trial", "Seed", "State", "Metric")
State = Literal["finished", "pruned", "failed"]
Split = Literal["test", "validation"]
CODE = ("stages", "common", "dvc.yaml")  # what besides parameters and data makes a result
FILES = (str(PARAMS), *METRICS, CURVE)
COMMITS = ("--branches", "--tags", "--remotes")
NAMES = ("refs/heads", "refs/tags", "refs/remotes")  # a branch of one's own names a commit first
ENTRY = re.compile(r"(?m)^(?=[A-Za-z_]\w*:(?:\s|$))")  # an entry of a flat mapping begins


@dataclass(frozen=True)
class Result:
    """What a commit or an experiment holds.

    Attributes
    ----------
    name : str
        The name of the experiment, or that of a branch or tag, or the first digits of the commit.
    commit : str
        The full hash.
    parent : str
        The full hash of the commit that an experiment started from; of a commit, its own.
    is_experiment : bool
        Whether it is an experiment of DVC.
    params : dict
        The values of params.yaml by key.
    metrics : dict of str to float
        The numbers of metrics/train.json, evaluate.json and define.json by key. A trial that was
        pruned or failed has none of evaluate.json.
    curve : DataFrame or None
        plots/training.csv: ``epoch``, ``train_loss``, ``train_accuracy``, ``validation_loss``,
        ``validation_accuracy``; None if there is none.
    scored : str
        The images that `evaluate` scored, ``test`` or ``validation``; "" if it did not run.
        metrics/train.json, too, has an accuracy on validation images, that of the last epoch.
    code : str
        A text that is the same for the same `CODE`.
    trailers : dict of str to str
        What a search wrote of it, by the names in `TRAILERS`; empty where no search ran it. State
        is ``finished``, ``pruned`` or ``failed``; Role is ``trial``, or ``winner`` or ``default``
        for the runs with fresh seeds at the end of a search.
    """

    name: str
    commit: str
    parent: str
    is_experiment: bool
    params: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curve: pd.DataFrame | None = None
    scored: Split | Literal[""] = ""
    code: str = ""
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Whether it ran to its end; what no search ran did."""
        states: tuple[State, ...] = get_args(State)
        return next((state for state in states if state == self.trailers.get("State")), "finished")

    @property
    def seed(self) -> object:
        """The seed in its parameters; None if there is none."""
        return self.params.get(SEED)

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the images that `evaluate` scored; None if it scored none."""
        value = self.metrics.get(f"{self.scored}_accuracy") if self.scored else None
        return value if value is not None and 0 <= value <= 1 else None


@dataclass(frozen=True)
class Reference:
    """A commit that may hold a result.

    Attributes
    ----------
    commit, parent, is_experiment, trailers
        As of `Result`.
    name : str
        That of the experiment, or of a branch or tag; "" if nothing names the commit.
    """

    name: str
    commit: str
    parent: str
    is_experiment: bool
    trailers: dict[str, str] = field(default_factory=dict)


def read_results() -> list[Result]:
    """Return the result of every experiment, and of every commit of branches and tags that has one.

    Commits with the same parameters, metrics and curve are one result: that of the first of them,
    or of the first that a branch or tag names. A file that cannot be read counts as not there.

    Returns
    -------
    list of Result
        The commits first, then the experiments, both oldest first.
    """
    references = [*list_commits(), *list_experiments()]
    paths = [*FILES, *CODE]
    objects = read_objects(f"{ref.commit}:./{path}" for ref in references for path in paths)
    results: dict[tuple[str, ...], Result] = {}
    for reference in references:
        held = {path: next(objects) for path in paths}
        key = tuple(held[path].name for path in FILES)
        if reference.is_experiment:
            key = (reference.commit, reference.name)
        elif not held[EVALUATE].content or (key in results and not reference.name):
            continue
        elif key in results and not results[key].commit.startswith(results[key].name):
            continue  # another branch or tag has named it
        results[key] = result_of(reference, held)
    return list(results.values())


def list_commits() -> list[Reference]:
    """Return every commit that a branch or tag reaches, oldest first."""
    names: dict[str, str] = {}
    form = "--format=%(objectname) %(*objectname) %(refname)"
    for line in os.fsdecode(git("for-each-ref", form, *NAMES) or b"").splitlines():
        tagged, commit, name = line.split(" ", 2)
        names.setdefault(commit or tagged, name.split("/", 2)[2])
    listed = git("rev-list", "--date-order", "--reverse", *COMMITS) or b""
    return [Reference(names.get(c, ""), c, c, False) for c in listed.decode().split()]


def list_experiments() -> list[Reference]:
    """Return every experiment of DVC, oldest first, and what a search wrote of it."""
    form = "--format=%(objectname)%00%(refname)%00%(contents:trailers:only,unfold)%00"
    listed = os.fsdecode(git("for-each-ref", "--sort=creatordate", form, EXPERIMENTS) or b"")
    fields = listed.split("\0")
    references = []
    for commit, reference, block in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        parts = reference.split("/", 4)
        if len(parts) == 5 and len(parts[3]) == 38:  # others are DVC's own notes
            pairs = (line.partition(": ") for line in block.splitlines())
            trailers = {key: value.strip() for key, _, value in pairs if key in TRAILERS}
            parent = parts[2] + parts[3]
            references.append(Reference(parts[4], commit.strip(), parent, True, trailers))
    return references


@dataclass(frozen=True)
class Object:
    """A file or folder that Git holds: its hash and its bytes, both empty if there is none."""

    name: str
    content: bytes


def read_objects(names: Iterable[str]) -> Iterator[Object]:
    """Return what Git holds by the names ``commit:./path``, with one start of Git for all."""
    with tempfile.TemporaryFile() as asked:
        asked.writelines(name.encode() + b"\n" for name in names)
        asked.seek(0)
        with subprocess.Popen(
            ["git", "cat-file", "--batch"],
            env=folder_environment(),
            stdin=asked,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            for header in process.stdout:
                if header.endswith((b" missing\n", b" ambiguous\n")):
                    yield Object("", b"")
                    continue
                name, _, size = header.split()
                yield Object(name.decode(), process.stdout.read(int(size)))
                process.stdout.read(1)


def result_of(reference: Reference, held: dict[str, Object]) -> Result:
    """Return the result of a commit from its `FILES` and `CODE`."""
    evaluate = read_numbers(held[EVALUATE].content)
    scored: list[Split] = [name for name in get_args(Split) if f"{name}_accuracy" in evaluate]
    return Result(
        reference.name or reference.commit[:10],
        reference.commit,
        reference.parent,
        reference.is_experiment,
        read_params(held[str(PARAMS)].content),
        {key: value for path in METRICS for key, value in read_numbers(held[path].content).items()},
        read_curve(held[CURVE].content),
        scored[0] if scored else "",
        " ".join(held[path].name for path in CODE),
        reference.trailers,
    )


@lru_cache(10_000)
def read_params(content: bytes) -> dict[str, object]:
    r"""Return the values of params.yaml as DVC reads them; none if it cannot be read.

    Most of the time would go into YAML, though hundreds of experiments differ in a few lines.
    Therefore each entry is read by itself, and once. Where that is no YAML, as of an entry that
    refers to another one, the file is read as a whole.

    Examples
    --------
    >>> read_params(b"epochs: 5  # passes\nconv_filters: [32,\n  64]\n")
    {'epochs': 5, 'conv_filters': [32, 64]}
    >>> read_params(b"a: &rate 0.1\nb: *rate\n")
    {'a': 0.1, 'b': 0.1}
    >>> read_params(b"a: 1\na: 2\n")
    {}
    """
    text = content.decode(errors="replace")
    values: dict[str, object] = {}
    begin, *entries = ENTRY.split(text)
    with suppress(InputError):
        if all(not line or line[0] in "# " for line in begin.splitlines()):
            for entry in entries:
                values |= read_entry(entry)
            if len(values) == len(entries):
                return values
    with suppress(InputError):
        whole = parse_yaml(content, str(PARAMS))
        return whole if isinstance(whole, dict) else {}
    return {}


@lru_cache(10_000)
def read_entry(entry: str) -> dict[str, object]:
    """Return the key and the value of one entry of params.yaml."""
    value = parse_yaml(entry.encode(), str(PARAMS))
    if not isinstance(value, dict) or len(value) != 1:
        raise InputError("this is no entry")
    return value


@lru_cache(10_000)
def read_numbers(content: bytes) -> dict[str, float]:
    """Return the numbers of a file of metrics, by key; none if it cannot be read.

    One that is not finite, or an accuracy that is none, counts as not there.
    """
    with suppress(ValueError, RecursionError):
        values = json.loads(content)
        if isinstance(values, dict):
            numbers = {key: value for key, value in values.items() if type(value) in (int, float)}
            return {key: value for key, value in numbers.items() if is_possible(key, value)}
    return {}


def is_possible(key: str, value: float) -> bool:
    """Whether a metric can have a value."""
    return math.isfinite(value) and (0 <= value <= 1 or not key.endswith("_accuracy"))


@lru_cache(10_000)
def read_curve(content: bytes) -> pd.DataFrame | None:
    """Return plots/training.csv; None if it is not there or has not its columns of numbers."""
    with suppress(ValueError, KeyError):
        table = pd.read_csv(io.BytesIO(content))[CURVE_COLUMNS]
        if all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
            return table
    return None


def differing(results: list[Result]) -> list[str]:
    """Return the parameters of which these results have several values, in their order.

    That an older result lacks a parameter, which its code did not have, is no difference.
    """
    values: dict[str, set[str]] = {}
    for result in results:
        for key, value in result.params.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, found in values.items() if len(found) > 1]


def settings_of(results: list[Result]) -> list[list[Result]]:
    """Put the results of each setting together: the same code and parameters, but for `NO_SETTING`.

    Wherever they come from: an experiment and the commit in which it was applied are of one.
    """
    settings: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        params = {key: value for key, value in result.params.items() if key not in NO_SETTING}
        key = (result.code, repr(sorted(params.items())))
        settings.setdefault(key, []).append(result)
    return list(settings.values())
