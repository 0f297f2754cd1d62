"""Read the network that `define` wrote, or `train`; refuse what they could not have written.

A description of a network names the classes to build it from, and Keras imports what it
names. Here a description that names anything but the classes below is refused before Keras
sees it, and Keras's own safe mode is on.
"""

import json
from pathlib import Path

import h5py

from common import layers
from common.backend import keras
from common.console import InputError

ADMITTED = {
    "Sequential": "keras",
    "DTypePolicy": "keras",
    **dict.fromkeys(layers.NAMES, "keras.layers"),
    "GlorotUniform": "keras.initializers",
    "Zeros": "keras.initializers",
    "Ones": "keras.initializers",
}


def read_architecture(path: Path) -> keras.Model:
    """Return the untrained network that an `architecture.json` describes.

    Raises
    ------
    InputError
        If the file is not the description of a network, or names a class that is not
        admitted.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    check(text, path)
    try:
        return keras.models.model_from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(not_a_network(path, error)) from None


def read_model(path: Path) -> keras.Model:
    """Return the trained network of a model file, uncompiled.

    Raises
    ------
    InputError
        If the file is damaged, or names a class that is not admitted.
    """
    try:
        with h5py.File(path) as file:
            text = str(file.attrs["model_config"])
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(not_a_network(path, error)) from None
    check(text, path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        raise InputError(not_a_network(path, error)) from None


def check(text: str, path: Path) -> None:
    """Check that a description names admitted classes alone.

    Raises
    ------
    InputError
        Naming the first other class.
    """
    try:
        todo = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise InputError(not_a_network(path, error)) from None
    if not isinstance(todo[0], dict) or todo[0].get("class_name") != "Sequential":
        raise InputError(not_a_network(path, "no Sequential network"))
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            name, module = value.get("class_name"), value.get("module")
            # A model file leaves out the module of its layers.
            known = isinstance(name, str) and name in ADMITTED and module in (None, ADMITTED[name])
            if "class_name" in value and not known:
                raise InputError(
                    f"{path} names {module or 'the class'} {name!r}, which `define` does not "
                    "write: refused; run `dvc repro`"
                )
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def not_a_network(path: Path, error: object) -> str:
    """Return the message for a file that cannot be read as a network."""
    reason = " ".join(str(error).split())[:200]
    return f"{path} is not a network that can be read ({reason}); run `dvc repro`"
