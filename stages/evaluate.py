"""Stage 4, `evaluate`: a model and test arrays to metrics and pictures.

Reads   models/mnist_cnn_model.h5, data/prepared/test, data/prepared/classes.json,
        plots/training.csv
Writes  metrics/evaluate.json: loss, accuracy and its 95% interval, errors, F1, calibration
        plots/predictions.csv: a row a test image
        plots/per_class.csv: precision, recall and F1 of each class
        plots/calibration.csv: confidence against accuracy
        plots/{loss,accuracy,confusion_matrix,misclassified}.png

The only stage that opens the test images.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from common.backend import keras, tf
from common.console import InputError, progress, run
from common.figures import draw_confusion_matrix, draw_curves, draw_misclassified
from common.model_files import read_model
from common.outputs import replacing, write_json
from common.splits import Split, read_classes, read_split

MODEL = Path("models/mnist_cnn_model.h5")
TEST = Path("data/prepared/test")
METRICS = Path("metrics/evaluate.json")
PLOTS = Path("plots")
TRAINING = PLOTS / "training.csv"

BATCH = 500
BINS = 15  # of the calibration error, as in Guo et al.
MISTAKES_SHOWN = 24


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


def predictions_of(probabilities: np.ndarray, split: Split, classes: list[str]) -> pd.DataFrame:
    """Return a row for each image: image, actual, predicted, confidence."""
    predicted = probabilities.argmax(axis=1)
    names = np.array(classes)
    return pd.DataFrame(
        {
            "image": split.names,
            "actual": names[split.labels],
            "predicted": names[predicted],
            "confidence": probabilities.max(axis=1),
        }
    )


def calibration_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare confidence with accuracy in `BINS` equal bins of confidence [1]_.

    Returns
    -------
    DataFrame
        A row for each bin that holds an image: mean ``confidence``, ``accuracy``, number of
        ``images``, and ``perfect``: the accuracy that the confidence promises.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On calibration of modern neural
       networks", ICML 2017.
    """
    bins = pd.cut(predictions["confidence"], np.linspace(0, 1, BINS + 1))
    correct = predictions["actual"] == predictions["predicted"]
    groups = predictions.assign(correct=correct).groupby(bins, observed=True)
    table = groups.agg(
        confidence=("confidence", "mean"), accuracy=("correct", "mean"), images=("correct", "size")
    )
    return table.assign(perfect=table["confidence"])


def metrics_of(
    probabilities: np.ndarray, labels: np.ndarray, f1: np.ndarray, calibration: pd.DataFrame
) -> dict[str, float]:
    """Return the numbers of metrics/evaluate.json.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (N, classes)
        What the model says.
    labels : ndarray of int64, shape (N,)
        What the images are.
    f1 : ndarray of float64, shape (classes,)
        F1 of each class.
    calibration : DataFrame
        From `calibration_of`.

    Returns
    -------
    dict of str to float
        The interval of the accuracy is Wilson's [1]_, at 95%. The loss is the mean
        cross-entropy in nats; like Keras's it takes no probability for less than 1e-7.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", JASA 22, 1927.
    """
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    gap = (calibration["confidence"] - calibration["accuracy"]).abs()
    return {
        "test_loss": float(-np.log(np.clip(given, 1e-7, 1)).mean()),
        "test_accuracy": correct / len(labels),
        "test_accuracy_low": interval.low,
        "test_accuracy_high": interval.high,
        "errors": len(labels) - correct,
        "macro_f1": float(np.nanmean(f1)),
        "expected_calibration_error": float((gap * calibration["images"]).sum() / len(labels)),
    }


def score_classes(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Return precision, recall, F1 and the number of images of each class.

    Parameters
    ----------
    labels, predicted : ndarray of int64, shape (N,)
        What the images are, and what the model takes them for.
    classes : list of str
        Names of the classes, by label.

    Returns
    -------
    DataFrame
        Columns ``class``, ``precision``, ``recall``, ``f1`` and ``images``; NaN where a score
        is not defined.
    """
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=np.nan
    )
    return pd.DataFrame(
        {"class": classes, "precision": precision, "recall": recall, "f1": f1, "images": images}
    )


def check_fits(model: keras.Model, test: Split, classes: list[str]) -> None:
    """Check that a model takes the test images and tells apart as many classes as there are.

    Raises
    ------
    InputError
        If it does not.
    """
    shapes = model.input_shape, model.output_shape
    expected = (None, *test.images.shape[1:]), (None, len(classes))
    if shapes != expected:
        raise InputError(
            f"{MODEL} takes {shapes[0]} and gives {shapes[1]}; the test images and classes need "
            f"{expected[0]} and {expected[1]}; run `dvc repro`"
        )


def draw_mistakes(predictions: pd.DataFrame, test: Split, classes: list[str], path: Path) -> None:
    """Draw the mistakes of which the model was most certain."""
    mistakes = predictions[predictions["actual"] != predictions["predicted"]]
    shown = mistakes.sort_values("confidence", ascending=False, kind="stable")[:MISTAKES_SHOWN]
    title = "No test image is misclassified"
    if len(mistakes):
        title = f"The most confident {len(shown)} of {len(mistakes)} misclassified test images"
    draw_misclassified(test.images[shown.index], shown, classes, title, path)


def main() -> None:
    """Run the stage."""
    classes = read_classes()
    test = read_split(TEST)
    model = read_model(MODEL)
    check_fits(model, test, classes)
    training = pd.read_csv(TRAINING)

    probabilities = predict(model, test)
    predicted = probabilities.argmax(axis=1)
    predictions = predictions_of(probabilities, test, classes)
    calibration = calibration_of(predictions)
    per_class = score_classes(test.labels, predicted, classes)
    metrics = metrics_of(probabilities, test.labels, per_class["f1"].to_numpy(), calibration)
    matrix = confusion_matrix(test.labels, predicted, labels=range(len(classes)))

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
        draw_mistakes(predictions, test, classes, output("misclassified.png"))
    interval = f"{metrics['test_accuracy_low']:.4f} to {metrics['test_accuracy_high']:.4f}"
    print(
        f"Test Accuracy {metrics['test_accuracy']:.4f} (95% interval {interval}), "
        f"loss {metrics['test_loss']:.4f}, {metrics['errors']} errors in {len(test):,} images"
    )


if __name__ == "__main__":
    run("evaluate", main)
