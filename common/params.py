"""Read params.yaml, check it, say what is wrong."""

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from common import declarations
from common.console import InputError

PARAMS = Path(declarations.PARAMS)


class StageParams(BaseModel):
    """The parameters of one stage: a field for each key that the stage reads.

    A field's description says what is allowed; it is what the user is told when the value
    is something else.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def different(names: list[str]) -> list[str]:
    """Check that no name stands twice."""
    if len(set(names)) < len(names):
        raise PydanticCustomError("different", "the names must differ")
    return names


def composed(names: list[str]) -> list[str]:
    """Return names in Unicode's composed form (NFC), as `common.datasets` has those of folders."""
    return [unicodedata.normalize("NFC", name) for name in names]


def as_written(names: object, info: ValidationInfo) -> object:
    """Check that YAML reads each name as it is written; take the whole number 3 for "3".

    Without quotes 1e3, null and 007 are a number, nothing and the number 7: that is what
    dvc.lock holds, and the folder that was meant can no longer be told from it.
    """
    if not isinstance(names, list):
        return names
    texts = (info.context or {}).get("classes", names)
    for name, text in zip(names, texts, strict=True):
        if isinstance(name, str | list | dict):
            continue
        if type(name) is not int or str(name) != text:
            raise ValueError(
                f"classes: {text or 'nothing'} without quotes is read as {name!r}; put names in "
                'quotes, as in ["007", "1e3"], and for `-S` as in \'classes=["007","1e3"]\''
            )
    return [str(name) if type(name) is int else name for name in names]


# What several stages read.
Seed = Annotated[
    int, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
]  # fmt: skip
ImageSize = Annotated[
    int, Field(ge=1, le=1024, description="a whole number of pixels from 1 to 1024")
]  # fmt: skip
Classes = Annotated[
    list[str],
    BeforeValidator(as_written),
    AfterValidator(composed),
    AfterValidator(different),
    Field(min_length=2),
]

Threads = Annotated[
    int | None,
    Field(ge=1, le=1024, description="a whole number from 1 to 1024, or null for all cores"),
]

ColorMode = Annotated[
    Literal["grayscale", "rgb"], Field(description="grayscale or rgb")
]  # fmt: skip
CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "rgb": 3}

P = TypeVar("P", bound=StageParams)


def parse_yaml(content: bytes, name: str, typ: Literal["safe", "base"] = "safe") -> object:
    """Read YAML as DVC does, with the same parser: by YAML 1.2, where 010 is ten and `no` a text.

    Parameters
    ----------
    content : bytes
        The text, in UTF-8.
    name : str
        What the error calls it.
    typ : str, default "safe"
        With "base" every value is the text that stands there.

    Raises
    ------
    InputError
        If it is not YAML.

    Examples
    --------
    >>> parse_yaml(b"{a: 010, b: no, c: 1e-3}", "example")
    {'a': 10, 'b': 'no', 'c': 0.001}
    """
    try:
        return YAML(typ=typ).load(content.decode())
    # ruamel.yaml lets through what the constructors of Python raise, as of `!!bool 3`.
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, MarkedYAMLError) and error.problem_mark:
            line = error.problem_mark.line + 1
            reason = f"line {line}: {error.context or ''} {error.problem}"
        raise InputError(f"{name} is not YAML: {' '.join(reason.split())}") from None


def read_params(model: type[P], path: Path = PARAMS) -> P:
    """Read the parameters of one stage.

    Parameters
    ----------
    model : type
        The stage's parameter class. Keys that it does not name are other stages' and are
        not looked at.
    path : Path, default params.yaml
        A YAML file with one flat mapping.

    Returns
    -------
    StageParams
        The checked parameters.

    Raises
    ------
    InputError
        If the file cannot be read, is not a mapping, lacks a key, holds one that no stage
        reads, or a value is not allowed: a line for each key, with its value and what is
        allowed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the root of the repository") from None
    values = parse_yaml(content, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of `key: value` lines")
    declarations.note_params(path, content)
    pipeline = path.with_name("dvc.yaml")
    if pipeline.is_file():
        check_keys(values, parse_yaml(pipeline.read_bytes(), str(pipeline), "base"), str(path))
    own = {key: values[key] for key in model.model_fields if key in values}
    texts = parse_yaml(content, str(path), "base")
    try:
        return model.model_validate(own, context=texts if isinstance(texts, dict) else {})
    except ValidationError as error:
        lines = [describe(model, own, problem) for problem in error.errors()]
    raise InputError("\n".join(dict.fromkeys(f"{path}: {line}" for line in lines)))


def check_keys(values: Iterable[str], pipeline: object, where: str) -> None:
    """Check that each key of params.yaml is one that a stage reads.

    Parameters
    ----------
    values : iterable of str
        The keys.
    pipeline : object
        What `parse_yaml` made of dvc.yaml.
    where : str
        What the error calls the file of the keys.

    Raises
    ------
    InputError
        If there is another: a line for each, with the nearest name.
    """
    known = declarations.declared_keys(pipeline) if isinstance(pipeline, dict) else set()
    if known is None:
        return
    lines = []
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, 1, 0.5)
            meant = f"; did you mean {nearest[0]}?" if nearest else "."
            lines.append(
                f"{where}: no stage reads {key!r}{meant} A parameter of your own is named in "
                "dvc.yaml, under `params` of the stage that reads it"
            )
    if lines:
        raise InputError("\n".join(lines))


def describe(model: type[StageParams], values: dict, problem: ErrorDetails) -> str:
    """Say in one line which key is wrong, what its value is and what is allowed."""
    if problem["type"] == "value_error":  # a check of the stage's own, in its own words
        return str(problem["ctx"]["error"])
    key = str(problem["loc"][0])
    allowed = model.model_fields[key].description
    if problem["type"] == "missing" and key not in values:
        return f"{key} is missing; it must be {allowed}"
    try:
        value = repr(values[key])
    except ValueError:  # Python writes no whole number of more than 4300 digits
        value = "a number of thousands of digits"
    return f"{key} is {value}; it must be {allowed}"
