"""Export the trained model: the second step of `make export`, after `inference.source`.

    python -m inference.export

Reads   models/mnist_cnn_model.h5, models/source.json, metrics/evaluate.json, data/prepared/test or
        data/prepared/validation, as `evaluate_on` was, data/prepared/train (to calibrate the int8
        model), data/prepared/classes.json
Writes  models/model.onnx, models/model.tflite, models/model_int8.tflite: uint8 pixels to
        probabilities
        models/export.json: how each compares with the trained model on the test images

A float model that does not answer as the trained one does fails the export: nothing is written. The
int8 model is an approximation: where it is much less accurate, a line says so.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.backend import keras
from common.console import InputError, progress, run
from common.model_files import read_model
from common.outputs import replacing, write_json
from common.params import CHANNELS
from common.splits import Split, read_classes, read_split
from inference.conversion import in_float32, to_litert, to_onnx
from inference.exported import ONNX, TRAINED, Description, ExportedModel
from inference.litert import LiteRTModel

LITERT = Path("models/model.tflite")
INT8 = Path("models/model_int8.tflite")
EXPORT = Path("models/export.json")
SOURCE = Path("models/source.json")
METRICS = Path("metrics/evaluate.json")
PREPARED = Path("data/prepared")

BATCH = 500
CALIBRATION_IMAGES = 300
TOLERANCE = 1e-4  # of a probability; docs/export.md derives it
MOST_LOST = 0.01  # of the accuracy; docs/export.md gives the reason
TIMED = 200  # answers to one image each

Probabilities = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """An exported model beside the trained one, on all test images.

    Attributes
    ----------
    name : str
        Of the format, as it stands in models/export.json.
    probabilities : ndarray of float32, shape (N, classes)
        What the exported model says.
    expected : ndarray of float32, shape (N, classes)
        What Keras says, computing in 32 bits.
    """

    name: str
    probabilities: np.ndarray
    expected: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The class of each image, int64 (N,): of several equal probabilities the first."""
        return self.probabilities.argmax(axis=1)

    @property
    def changed(self) -> np.ndarray:
        """Whether the class of each image is another than Keras's, bool (N,)."""
        return self.predicted != self.expected.argmax(axis=1)

    @property
    def largest_difference(self) -> float:
        """The largest difference of a probability to Keras's."""
        return float(np.abs(self.probabilities - self.expected).max())

    def check_equal(self) -> None:
        """Check that the model says the same as Keras, except for rounding.

        Where Keras itself gives two classes the same probability, up to the tolerance, rounding
        decides between them, and either is right.

        Raises
        ------
        InputError
            If it does not.
        """
        if not self.largest_difference <= TOLERANCE:  # also if it is not a number
            raise InputError(
                f"the {self.name} model differs from the trained one by "
                f"{self.largest_difference:.2g} in a probability; rounding explains {TOLERANCE:g}: "
                "nothing is exported"
            )
        chosen = self.expected[np.arange(len(self.expected)), self.predicted]
        different = int((self.expected.max(axis=1) - chosen > TOLERANCE).sum())
        if different:
            raise InputError(
                f"the {self.name} model gives {different:,} of the test images another "
                "class than the trained one: nothing is exported"
            )

    def loss_of_accuracy(self, trained: np.ndarray, labels: np.ndarray) -> str:
        """Say how much less accurate the model is than the trained one; nothing if it hardly is.

        What it newly gets wrong may exceed what it newly gets right by `MOST_LOST` of the images
        and by two standard deviations of that difference, which decide on a small test set.

        Parameters
        ----------
        trained : ndarray of int64, shape (N,)
            The classes that the trained model gives the test images.
        labels : ndarray of int64, shape (N,)
            Their true classes.
        """
        right, was_right = self.predicted == labels, trained == labels
        lost = int(was_right.sum()) - int(right.sum())
        deviation = math.sqrt((right != was_right).sum())
        if lost <= MOST_LOST * len(labels) + 2 * deviation:
            return ""
        return (
            f"the {self.name} model gets {lost} more of {len(labels):,} test images wrong than the "
            f"trained one, which is more than {MOST_LOST:.0%} and chance"
        )


def ask(title: str, probabilities_of: Probabilities, split: Split) -> np.ndarray:
    """Return the probabilities of all images of a split, float32 (N, classes)."""
    blocks = []
    with progress(f"export: {title}", len(split), "images") as bar:
        for start in range(0, len(split), BATCH):
            blocks.append(probabilities_of(split.images[start : start + BATCH]))
            bar.update(len(blocks[-1]))
    return np.concatenate(blocks)


def ask_keras(model: keras.Model, split: Split) -> np.ndarray:
    """Return what Keras says of all images of a split, fed as a reader of the notebook would."""
    return ask("Keras", lambda images: model.predict_on_batch(images / np.float32(255)), split)


def latency(probabilities_of: Probabilities, image: np.ndarray) -> float:
    """Return the median time of an answer to one image, uint8 (1, H, W, C), in milliseconds."""
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        probabilities_of(image)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def describe(model: keras.Model, test: Split) -> Description:
    """Return what the exported files are to say of themselves.

    Raises
    ------
    InputError
        If the model does not take the test images, or does not tell the classes apart.
    """
    classes = read_classes()
    image_shape = test.images.shape[1:]
    if (model.input_shape[1:], model.output_shape[1:]) != (image_shape, (len(classes),)):
        raise InputError(
            f"{TRAINED} takes images of {model.input_shape[1:]} and tells apart "
            f"{model.output_shape[1]} classes; the test images are of {image_shape}, in "
            f"{len(classes)} classes; run `make repro`"
        )
    color_modes = {channels: mode for mode, channels in CHANNELS.items()}
    return Description(
        classes=classes,
        image_size=image_shape[0],
        color_mode=color_modes[image_shape[2]],
        metrics=json.loads(METRICS.read_text()),
        **json.loads(SOURCE.read_text()),
    )


def main() -> None:
    """Convert, check, write, and print what was measured."""
    metrics = json.loads(METRICS.read_text())
    split_name = (
        "validation" if "validation_accuracy" in metrics else "test"
    )  # as `evaluate` had it
    test, train = read_split(PREPARED / split_name), read_split(PREPARED / "train")
    model = read_model(TRAINED)
    description = describe(model, test)
    network = in_float32(model)
    chosen = np.linspace(0, len(train) - 1, min(CALIBRATION_IMAGES, len(train))).astype(int)
    expected = ask_keras(network, test)
    trained = (expected if network is model else ask_keras(model, test)).argmax(axis=1)
    accuracy = float((trained == test.labels).mean())
    numbers: dict[str, float] = {"images": len(test), "keras_accuracy": accuracy}
    rows = [("", "bytes", "accuracy", "difference", "changed", "one image")]
    rows.append(("Keras", f"{TRAINED.stat().st_size:,}", f"{accuracy:.2%}", "", "", ""))
    formats: list[tuple[str, Path, bytes, type]] = [
        ("onnx", ONNX, to_onnx(network, description), ExportedModel),
        ("litert", LITERT, to_litert(network, description), LiteRTModel),
        ("int8", INT8, to_litert(network, description, train.images[chosen]), LiteRTModel),
    ]

    with ExitStack() as outputs:
        for name, path, content, reader in formats:
            partial = outputs.enter_context(replacing(path))
            partial.write_bytes(content)
            exported = reader(partial)
            comparison = Comparison(name, ask(name, exported.probabilities_of, test), expected)
            loss = comparison.loss_of_accuracy(trained, test.labels)
            if name == "int8" and loss:
                print(f"export: warning: {loss}: use another format", flush=True)
            elif name != "int8":
                comparison.check_equal()
                if loss:
                    raise InputError(f"{loss}: nothing is exported")
            accuracy = float((comparison.predicted == test.labels).mean())
            difference, changed = comparison.largest_difference, int(comparison.changed.sum())
            numbers[f"{name}_bytes"] = len(content)
            numbers[f"{name}_accuracy"] = accuracy
            numbers[f"{name}_largest_difference"] = difference
            numbers[f"{name}_changed_classes"] = changed
            cells = f"{len(content):,}", f"{accuracy:.2%}", f"{difference:.1e}", f"{changed:,}"
            milliseconds = latency(exported.probabilities_of, test.images[:1])
            rows.append((str(path), *cells, f"{milliseconds:.3f} ms"))
        write_json(outputs.enter_context(replacing(EXPORT)), numbers)
    print(f"export: compared with Keras on {len(test):,} {split_name} images")
    for first, *others in rows:
        print(f"{first:24}" + "".join(f"{cell:>12}" for cell in others))


if __name__ == "__main__":
    run("export", main)
