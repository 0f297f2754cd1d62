"""Read params.yaml, check it, say what is wrong."""

import re
import unicodedata
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from stages.console import InputError

PARAMS = Path("params.yaml")


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
    """Return names in Unicode's composed form (NFC), as `stages.images` has those of folders."""
    return [unicodedata.normalize("NFC", name) for name in names]


# What several stages read.
Seed = Annotated[
    int, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
]  # fmt: skip
ImageSize = Annotated[
    int, Field(ge=1, le=1024, description="a whole number of pixels from 1 to 1024")
]  # fmt: skip
ClassName = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
Classes = Annotated[
    list[ClassName],
    AfterValidator(composed),
    AfterValidator(different),
    Field(min_length=2, description="a list of two or more different folder names"),
]

P = TypeVar("P", bound=StageParams)


class Loader(yaml.SafeLoader):
    """YAML as DVC reads it: in YAML 1.2 `1e-3` is a number, in PyYAML's YAML 1.1 a text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


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
        If the file cannot be read, is not a mapping, lacks a key, or a value is not allowed:
        a line for each key, with its value and what is allowed.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the root of the repository") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of `key: value` lines")
    mine = {key: values[key] for key in model.model_fields if key in values}
    try:
        return model(**mine)
    except ValidationError as error:
        lines = [describe(model, mine, problem) for problem in error.errors()]
    raise InputError("\n".join(dict.fromkeys(f"{path}: {line}" for line in lines)))


def describe(model: type[StageParams], values: dict, problem: dict) -> str:
    """Say in one line which key is wrong, what its value is and what is allowed."""
    if problem["type"] == "value_error":  # a check of the stage's own, in its own words
        return str(problem["ctx"]["error"])
    key = problem["loc"][0]
    allowed = model.model_fields[key].description
    if problem["type"] == "missing" and key not in values:
        return f"{key} is missing; it must be {allowed}"
    return f"{key} is {values[key]!r}; it must be {allowed}"
