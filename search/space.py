"""The space of a search: which parameters it tries, and which values of each.

A space is a YAML file with a line for each parameter of params.yaml that a search sets: the values
to choose from, in a list, or a range, with `log: true` where each tenfold step counts as much as
the one before. A list of one value sets it for all trials:

    batch_size: [32, 64, 128]
    dropout: {low: 0.0, high: 0.5}
    learning_rate: {low: 0.0005, high: 0.02, log: true}
    epochs: [15]
"""

import itertools
import json
import math
import multiprocessing
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError

from common.console import InputError
from common.datasets import open_dataset
from common.params import PARAMS, StageParams, describe, parse_yaml
from common.selection import ALL, Counts, choose_images, find_images, set_test_images_aside

Values = dict[str, Any]  # of parameters, by key

# Trials that are judged on different images cannot be compared: each of these has one value.
SAME_FOR_ALL = (
    "data_seed",
    "dataset",
    "classes",
    "train_images",
    "validation_images",
    "test_images",
    "bad_images",
)
# The search itself sets the seeds and the images that judge; threads are those of the machine.
NOT_SEARCHED = ("seed", "evaluate_on", "threads")
DIGITS = 3  # that a number from a range keeps: enough to choose by, and short enough to read


@dataclass(frozen=True)
class Space:
    """What a search tries.

    Attributes
    ----------
    fixed : dict
        The value of each parameter that is the same for all trials.
    distributions : dict
        Where Optuna draws each other parameter from.
    """

    fixed: Values
    distributions: dict[str, BaseDistribution]

    @property
    def size(self) -> float:
        """How many different trials there are; infinite where a parameter has a range."""
        return math.prod(
            len(d.choices) if isinstance(d, CategoricalDistribution) else math.inf
            for d in self.distributions.values()
        )

    def values_of(self, drawn: Mapping[str, Any]) -> Values:
        """Return the parameters of a trial, as params.yaml holds them, from what Optuna drew."""
        return self.fixed | {
            key: json.loads(value) if is_choice(self.distributions[key]) else value
            for key, value in drawn.items()
        }

    def drawn_of(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Return what Optuna drew, from the parameters of a trial.

        Raises
        ------
        InputError
            If the space does not contain them.
        """
        drawn = {}
        for key, distribution in self.distributions.items():
            value = values.get(key)
            drawn[key] = json.dumps(value) if is_choice(distribution) else value
            try:
                is_inside = distribution._contains(distribution.to_internal_repr(drawn[key]))
            except ValueError:
                is_inside = False
            if not is_inside:
                raise InputError(f"{key} is {value!r}, which the space does not contain")
        return drawn


def is_choice(distribution: BaseDistribution) -> bool:
    """Return whether a parameter has choices, which Optuna gets as JSON, and not a range."""
    return isinstance(distribution, CategoricalDistribution)


def rounded(drawn: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return what Optuna drew, with numbers of three digits that stay within their range.

    Examples
    --------
    >>> space = Space({}, {"rate": FloatDistribution(0.00123456, 0.1)})
    >>> rounded({"rate": 0.0123456}, space), rounded({"rate": 0.00123457}, space)
    ({'rate': 0.0123}, {'rate': 0.00123456})
    """
    result = dict(drawn)
    for key, distribution in space.distributions.items():
        if isinstance(distribution, FloatDistribution):
            short = float(f"{drawn[key]:.{DIGITS}g}")
            result[key] = min(max(short, distribution.low), distribution.high)
    return result


def read_space(path: Path, params: Values) -> Space:
    """Read a space, and check that a trial could run.

    Parameters
    ----------
    path : Path
        The file.
    params : dict
        params.yaml, for what the space leaves as it is.

    Raises
    ------
    InputError
        If it is no space; a line for each value outside of the limits of its parameter; or why
        no trial could run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"SPACE is {str(path)!r}, which cannot be read: {error}") from None
    entries = parse_yaml(content, str(path))
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path} must be a mapping of `parameter: values` lines")
    problems, candidates = [], {}
    space = Space({}, {})
    for key, entry in entries.items():
        try:
            if key not in params:
                raise ValueError(f"is no parameter of {PARAMS}")
            if key in NOT_SEARCHED:
                raise ValueError("is not searched: the search or the machine decides it")
            candidates[key] = add_entry(space, key, entry)
        except (ValueError, TypeError) as error:
            problems.append(f"{path}: {key} {error}")
    if not problems and not space.distributions:
        problems = [f"{path} leaves nothing to search: each parameter has a single value"]
    if not problems:
        problems = [f"{path}: {line}" for line in outside_of_limits(params, space, candidates)]
    if problems:
        raise InputError("\n".join(problems))
    return space


def add_entry(space: Space, key: str, entry: object) -> list[Any]:
    """Add a parameter to a space; return its choices, or the two ends of its range.

    Raises
    ------
    ValueError, TypeError
        If the entry is neither a list nor a range, in words that follow the name of the key.
    """
    if isinstance(entry, list) and entry:
        texts = [json.dumps(choice) for choice in entry]
        if len(set(texts)) < len(texts):
            raise ValueError(f"is {entry!r}; the choices must differ")
        if len(entry) == 1:
            space.fixed[key] = entry[0]
        elif key in SAME_FOR_ALL:
            raise ValueError(
                f"is {entry!r}; it must have one value, as trials on different images cannot be "
                "compared"
            )
        else:
            space.distributions[key] = CategoricalDistribution(texts)
        return entry
    form = "a list of choices, or a range such as {low: 0.001, high: 0.1, log: true}"
    if not isinstance(entry, dict) or not {"low", "high"} <= entry.keys() <= {"low", "high", "log"}:
        raise ValueError(f"is {entry!r}; it must be {form}")
    if key in SAME_FOR_ALL:
        raise ValueError("has a range; it must be a list of one value, the same for all trials")
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    if not isinstance(log, bool) or not all(type(end) in (int, float) for end in (low, high)):
        raise ValueError(f"is {entry!r}; low and high must be numbers, and log true or false")
    if not low < high or (log and low <= 0):
        raise ValueError(f"is {entry!r}; low must be below high, and above 0 where log is true")
    if type(low) is int and type(high) is int:
        space.distributions[key] = IntDistribution(low, high, log=log)
    else:
        space.distributions[key] = FloatDistribution(float(low), float(high), log=log)
    return [low, high]


def outside_of_limits(params: Values, space: Space, candidates: dict[str, list]) -> list[str]:
    """Return a line for each value that a stage would refuse, or why no trial could run.

    The stages are asked in a process of their own: they import TensorFlow, which would stay in
    memory for as long as the search runs.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        # The process inherits that Ctrl-C, which is for the one that waits, is kept from it.
        kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        answer = pool.submit(refused, params | space.fixed, candidates)
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
        return answer.result()


def refused(params: Values, candidates: dict[str, list]) -> list[str]:
    """Return why the stages would refuse a candidate of a parameter, or else every trial."""
    return refused_values(params, candidates) or [
        *refused_networks(params, candidates),
        *refused_images(params),
    ]


def own_params(model: type[StageParams], params: Values) -> Values:
    """Return the parameters that a stage reads."""
    return {name: params[name] for name in model.model_fields if name in params}


def refused_values(params: Values, candidates: dict[str, list]) -> list[str]:
    """Try each candidate of each parameter in the classes by which the stages read params.yaml."""
    from stages.define import DefineParams
    from stages.evaluate import EvaluateParams
    from stages.load import LoadParams
    from stages.train import TrainParams

    classes: list[type[StageParams]] = [LoadParams, DefineParams, TrainParams, EvaluateParams]
    lines = []
    for key, values in candidates.items():
        for value, model in itertools.product(values, classes):
            if key not in model.model_fields:
                continue
            own = own_params(model, params) | {key: value}
            try:
                model.model_validate(own)
            except ValidationError as error:
                # What several parameters must have in common, as the size of the image and the
                # convolutions, is decided in each trial: one that cannot be run fails.
                own_problems = [problem for problem in error.errors() if problem["loc"]]
                lines += [describe(model, own, problem) for problem in own_problems]
    return list(dict.fromkeys(lines))


def refused_networks(params: Values, candidates: dict[str, list]) -> list[str]:
    """Return why `define` would refuse the network of every trial; nothing if it takes one."""
    from stages.define import DefineParams

    searched = {key: v for key, v in candidates.items() if key in DefineParams.model_fields}
    lines: list[str] = []
    for values in itertools.product(*searched.values()):
        own = own_params(DefineParams, params) | dict(zip(searched, values, strict=True))
        try:
            DefineParams.model_validate(own)
        except ValidationError as error:
            lines = [describe(DefineParams, own, error.errors()[0])]
        else:
            return []
    return lines


def refused_images(params: Values) -> list[str]:
    """Return why `load` would refuse the images of all trials, which are the same."""
    from stages.load import LoadParams

    load = LoadParams.model_validate(own_params(LoadParams, params))
    path = Path(load.dataset)
    if not path.exists():  # a trial may find it in DVC's cache
        return []
    wanted = Counts(load.train_images, load.validation_images, load.test_images)
    try:
        with redirect_stdout(None):  # what is left out, each trial says
            dataset = open_dataset(path)
            _, groups = find_images(dataset, load.classes)
        if ALL in groups:
            groups = set_test_images_aside(dataset, groups[ALL])
        choose_images(dataset, groups, wanted, load.data_seed)
    except InputError as error:
        return [str(error).removeprefix(f"{PARAMS}: ")]
    return []
