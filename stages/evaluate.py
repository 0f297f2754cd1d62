"""Stage 4, `evaluate`: a model and test arrays to metrics and pictures.

Reads   models/mnist_cnn_model.h5, data/prepared/test or data/prepared/validation, as
        `evaluate_on` says, data/prepared/classes.json, plots/training.csv
Writes  metrics/evaluate.json: loss, accuracy and its 95% interval, errors, F1, calibration
        plots/predictions.csv: a row an image
        plots/per_class.csv: precision, recall and F1 of each class
        plots/calibration.csv: confidence against accuracy
        plots/{loss,accuracy,confusion_matrix,misclassified}.png

The only stage that opens the test images that `load` wrote, and not even this one if `evaluate_on`
is `validation`: whoever searches for better settings judges them by validation images, so that the
test images still tell what the choice is worth.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.metrics import confusion_matrix

from common.backend import keras, tf, use_threads
from common.console import InputError, progress, run
from common.figures import draw_confusion_matrix, draw_curves, draw_misclassified
from common.model_files import read_model
from common.outputs import replacing, write_json
from common.params import StageParams, Threads, read_params
from common.scores import calibration_of, losses_of, metrics_of, score_classes
from common.splits import Split, read_classes, read_split

MODEL = Path("models/mnist_cnn_model.h5")
PREPARED = Path("data/prepared")
METRICS = Path("metrics/evaluate.json")
PLOTS = Path("plots")
TRAINING = PLOTS / "training.csv"

BATCH = 500
MISTAKES_SHOWN = 24


class EvaluateParams(StageParams):
    """What `evaluate` reads of params.yaml."""

    threads: Threads
    evaluate_on: Literal["test", "validation"] = Field(description="test or validation")


def predict(model: keras.Model, split: Split) -> np.ndarray:
    """Return the probability of each class for each image.

    Returns
    -------
    ndarray of float32, shape (N, classes)
        Rows sum to 1.
    """

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
    def probabilities_of(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, tf.float32) / 255.0, training=False)

    blocks = []
    with progress("evaluate", len(split), "images") as bar:
        for start in range(0, len(split), BATCH):
            blocks.append(probabilities_of(split.images[start : start + BATCH]).numpy())
            bar.update(len(blocks[-1]))
    return np.concatenate(blocks)


def predictions_of(
    probabilities: np.ndarray, split: Split, classes: list[str], split_name: str
) -> pd.DataFrame:
    """Return a row for each image: image, actual, predicted, confidence, loss, split."""
    predicted = probabilities.argmax(axis=1)
    names = np.array(classes)
    return pd.DataFrame(
        {
            "image": split.names,
            "actual": names[split.labels],
            "predicted": names[predicted],
            "confidence": probabilities.max(axis=1),
            "loss": losses_of(probabilities, split.labels),
            "split": split_name,
        }
    )


def check_fits(model: keras.Model, split: Split, classes: list[str]) -> None:
    """Check that a model takes the images and tells apart as many classes as there are.

    Raises
    ------
    InputError
        If it does not.
    """
    shapes = model.input_shape, model.output_shape
    expected = (None, *split.images.shape[1:]), (None, len(classes))
    if shapes != expected:
        raise InputError(
            f"{MODEL} takes {shapes[0]} and gives {shapes[1]}; the images and classes need "
            f"{expected[0]} and {expected[1]}; run `dvc repro`"
        )


def draw_mistakes(
    predictions: pd.DataFrame, split: Split, classes: list[str], split_name: str, path: Path
) -> None:
    """Draw the mistakes of which the model was most certain."""
    mistakes = predictions[predictions["actual"] != predictions["predicted"]]
    shown = mistakes.sort_values("confidence", ascending=False, kind="stable")[:MISTAKES_SHOWN]
    title = f"No {split_name} image is misclassified"
    if len(mistakes):
        title = (
            f"The most confident {len(shown)} of {len(mistakes)} misclassified {split_name} images"
        )
    draw_misclassified(split.images[shown.index], shown, classes, title, path)


def main() -> None:
    """Run the stage."""
    params = read_params(EvaluateParams)
    use_threads(params.threads)
    classes = read_classes()
    split_name = params.evaluate_on
    split = read_split(PREPARED / split_name)
    model = read_model(MODEL)
    check_fits(model, split, classes)
    training = pd.read_csv(TRAINING)

    probabilities = predict(model, split)
    predicted = probabilities.argmax(axis=1)
    predictions = predictions_of(probabilities, split, classes, split_name)
    calibration = calibration_of(predictions)
    per_class = score_classes(predictions, classes)
    f1 = per_class["f1"].to_numpy()
    metrics = metrics_of(probabilities, split.labels, f1, calibration, split_name)
    matrix = confusion_matrix(split.labels, predicted, labels=range(len(classes)))

    with ExitStack() as outputs:

        def output(name: str) -> Path:
            return outputs.enter_context(replacing(PLOTS / name))

        write_json(outputs.enter_context(replacing(METRICS)), metrics)
        predictions.to_csv(output("predictions.csv"), index=False, float_format="%.6f")
        per_class.to_csv(output("per_class.csv"), index=False, float_format="%.6f")
        calibration.to_csv(output("calibration.csv"), index=False, float_format="%.6f")
        for quantity in ("loss", "accuracy"):
            draw_curves(training, quantity, output(f"{quantity}.png"))
        draw_confusion_matrix(matrix, classes, output("confusion_matrix.png"))
        draw_mistakes(predictions, split, classes, split_name, output("misclassified.png"))
    accuracy, low, high = (metrics[f"{split_name}_accuracy{end}"] for end in ("", "_low", "_high"))
    print(
        f"{split_name.capitalize()} Accuracy {accuracy:.4f} (95% interval {low:.4f} to "
        f"{high:.4f}), loss {metrics[f'{split_name}_loss']:.4f}, {metrics['errors']} errors in "
        f"{len(split):,} images"
    )


if __name__ == "__main__":
    run("evaluate", main)
