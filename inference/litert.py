"""Read and ask a model exported to LiteRT, formerly TensorFlow Lite.

What the file says of itself is a file in a zip archive at its end, as TensorFlow Lite's own
metadata tools attach files to a model [1]_: LiteRT does not look there, and any zip tool does.

References
----------
.. [1] https://ai.google.dev/edge/litert/models/metadata
"""

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np

from common.backend import tf, without_greetings
from inference.exported import INPUT, OUTPUT, Description

DESCRIPTION = "description.json"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive can note


def with_description(content: bytes, description: Description) -> bytes:
    """Return a LiteRT file with a description at its end."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        entry = zipfile.ZipInfo(DESCRIPTION, LONG_AGO)
        archive.writestr(entry, description.model_dump_json(indent=2) + "\n")
    return file.getvalue()


def read_description(path: Path) -> Description:
    """Return the description at the end of a LiteRT file that `make export` wrote."""
    with zipfile.ZipFile(path) as archive:
        return Description.model_validate_json(archive.read(DESCRIPTION))


class LiteRTModel:
    """A trained model, exported to LiteRT, in memory.

    Parameters
    ----------
    path : Path
        A file that `make export` wrote.
    """

    def __init__(self, path: Path) -> None:
        # TensorFlow warns that its interpreter will move to a package of its own; it has not yet.
        with warnings.catch_warnings(), without_greetings():
            warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
            self.interpreter = tf.lite.Interpreter(str(path))
        signature = self.interpreter.get_signature_runner()
        self.input = signature.get_input_details()[INPUT]["index"]
        self.output = signature.get_output_details()[OUTPUT]["index"]
        self.shape: tuple[int, ...] = ()

    def probabilities_of(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class for each image.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, image_size, image_size, 1 or 3)

        Returns
        -------
        ndarray of float32, shape (N, classes)
            Rows sum to 1; those of an int8 model are multiples of 1/256, and their sum is near 1.
        """
        if images.shape != self.shape:
            self.shape = images.shape
            self.interpreter.resize_tensor_input(self.input, self.shape)
            with without_greetings():
                self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.input, images)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output)
