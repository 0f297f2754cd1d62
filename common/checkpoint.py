"""Keep the state of a training run after each epoch, so that an interrupted run goes on.

A checkpoint is bound to a fingerprint of everything that shapes the run. It is not an output:
a run that goes on from it ends with the same bytes as one that was never interrupted.
"""

import hashlib
import io
import json
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from common.backend import keras, tf
from common.outputs import replacing

DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, TypeError)

History = list[dict[str, float]]


def fingerprint(parameters: str, files: list[Path]) -> dict[str, str]:
    """Return a hash of each thing that shapes a run, by its name.

    Parameters
    ----------
    parameters : str
        The parameters of the run, as text.
    files : list of Path
        What the run reads. The project's own modules, as they are imported, and the versions
        of TensorFlow, Keras and NumPy are added.
    """
    modules = [m for n, m in sys.modules.items() if n.startswith("common.") or n == "__main__"]
    files_of_modules = (getattr(module, "__file__", None) for module in modules)
    code = [Path(file) for file in files_of_modules if file]
    paths = {f"{path.parent.name}/{path.name}": path for path in code}
    paths |= {str(path): path for path in files}
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}"
    hashes = {"the parameters": parameters, "the versions of packages": versions}
    for name, path in sorted(paths.items()):
        with path.open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def save(
    path: Path,
    run: dict[str, str],
    history: History,
    variables: list[keras.Variable],
    best_weights: list[np.ndarray],
) -> None:
    """Save the state of a run in place of its earlier state.

    Parameters
    ----------
    path : Path
        The checkpoint.
    run : dict of str to str
        From `fingerprint`.
    history : list of dict
        Loss and accuracy of each finished epoch.
    variables : list of keras.Variable
        Weights, optimizer state and the state of random layers.
    best_weights : list of ndarray
        The weights of the best epoch, where they are wanted; otherwise none.
    """
    header = np.frombuffer(json.dumps({"run": run, "history": history}).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, header, *(variable.numpy() for variable in variables), *best_weights)
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())


def restore(
    content: bytes, run: dict[str, str], variables: list[keras.Variable]
) -> tuple[History, list[np.ndarray]]:
    """Set the variables to a saved state, if it is one of the same run.

    What is found and done is said on the console.

    Parameters
    ----------
    content : bytes
        What `save` wrote; empty if there is no checkpoint.
    run, variables
        As for `save`.

    Returns
    -------
    history : list of dict
        Loss and accuracy of each finished epoch; none where the run starts anew.
    best_weights : list of ndarray
        The weights of the best epoch, if they were saved.
    """
    if not content:
        return [], []
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            header, *values = (file[name] for name in file.files)
        state = json.loads(header.tobytes())
        if state["run"] != run:
            print("train: the checkpoint is that of another run: starting over", flush=True)
            return [], []
        history = state["history"]
        best_weights = values[len(variables) :]
        values = values[: len(variables)]
        if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
            raise ValueError("its arrays are of other shapes")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    except DAMAGE as error:
        print(f"train: the checkpoint is damaged ({error}): starting over", flush=True)
        return [], []
    print(f"train: going on after epoch {len(history)} of an interrupted run", flush=True)
    return history, best_weights
