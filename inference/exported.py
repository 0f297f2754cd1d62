"""Read and ask an exported model: no TensorFlow, a fraction of a second to start.

What is needed to use a model is in its file: the names of the classes, the size and the colours of
the images that it takes, and where it comes from.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict

from common.console import InputError, run_program
from common.params import ColorMode

TRAINED = Path("models/mnist_cnn_model.h5")
ONNX = Path("models/model.onnx")
INPUT, OUTPUT = "images", "probabilities"


class Description(BaseModel):
    """What an exported model says of itself, in the metadata of its file.

    Attributes
    ----------
    classes : list of str
        Names of the classes, by label.
    image_size : int
        Height and width of the images that it takes, in pixels.
    color_mode : str
        ``grayscale`` or ``rgb``.
    model_md5 : str
        MD5 of the trained model that it was made from, in hexadecimal, as in dvc.lock.
    commit : str or None
        The commit whose dvc.lock first names that model; None if no commit did at the export.
    metrics : dict of str to float
        metrics/evaluate.json: what the trained model reached on the test images.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    classes: list[str]
    image_size: int
    color_mode: ColorMode
    model_md5: str
    commit: str | None
    metrics: dict[str, float]

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata of a file: each value as JSON."""
        values = self.model_dump()
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "Description":
        """Return what `to_metadata` was called on; raise `ValueError` for other metadata."""
        return cls(**{key: json.loads(value) for key, value in metadata.items()})


class ExportedModel:
    """A trained model, exported to ONNX, in memory.

    Parameters
    ----------
    path : Path, default models/model.onnx
        A file that `make export` wrote.

    Attributes
    ----------
    description : Description
        What the file says of the model.

    Raises
    ------
    InputError
        If there is no such file, or `make export` did not write it.
    """

    def __init__(self, path: Path = ONNX) -> None:
        if not path.exists():
            raise InputError(f"{path} does not exist; `make export` makes it of the trained model")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        # Threads that wait for work by looking for it would take half of the server's time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
            metadata = self.session.get_modelmeta().custom_metadata_map
            self.description = Description.from_metadata(metadata)
        except Exception as error:  # onnxruntime raises classes of its own that share no base
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} is not a model that can be used ({reason}); run `make export`"
            ) from None

    def probabilities_of(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class for each image.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, image_size, image_size, 1 or 3)
            As `common.decoding.decode` returns them.

        Returns
        -------
        ndarray of float32, shape (N, classes)
            Rows sum to 1.
        """
        return self.session.run([OUTPUT], {INPUT: images})[0]


def open_current() -> ExportedModel:
    """Open the exported model; where it is not of the trained model that is there, export first.

    Where no trained model is there, as on a machine that only uses one, the exported one is opened
    as it is. What the export prints goes to stderr: what uses the model prints its own results.

    Raises
    ------
    InputError
        If there is neither a trained nor an exported model, or the export fails.
    """
    if not TRAINED.exists():
        if not ONNX.exists():
            raise InputError("no model is trained yet; `make repro` trains one")
        return ExportedModel()
    reason = "is not exported yet"
    if ONNX.exists():
        model = ExportedModel()
        if model.description.model_md5 == md5_of(TRAINED):
            return model
        reason = "has changed"
    print(f"exporting the model, which {reason}", file=sys.stderr, flush=True)
    for module in ("inference.source", "inference.export"):
        done = run_program([sys.executable, "-m", module], stdout=sys.stderr)
        if done.returncode:
            raise InputError("the model could not be exported; the reason stands above")
    return ExportedModel()


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal, as dvc.lock has it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
