"""The numbers by which a model is judged: of each image, of each class, and of all together."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

BINS = 15  # of the calibration error, as in Guo et al.
LEAST = 1e-7  # a probability below it counts as this much in the loss, as in Keras


def losses_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image in nats, float64.

    It takes no probability for less than `LEAST`.
    """
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(given, LEAST, 1))


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
    probabilities: np.ndarray,
    labels: np.ndarray,
    f1: np.ndarray,
    calibration: pd.DataFrame,
    split_name: str,
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
    split_name : str
        ``test`` or ``validation``, with which the names of loss and accuracy begin.

    Returns
    -------
    dict of str to float
        The interval of the accuracy is Wilson's [1]_, at 95%. The loss is the mean of
        `losses_of`.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", JASA 22, 1927.
    """
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    gap = (calibration["confidence"] - calibration["accuracy"]).abs()
    return {
        f"{split_name}_loss": float(losses_of(probabilities, labels).mean()),
        f"{split_name}_accuracy": correct / len(labels),
        f"{split_name}_accuracy_low": interval.low,
        f"{split_name}_accuracy_high": interval.high,
        "errors": len(labels) - correct,
        "macro_f1": float(np.nanmean(f1)),
        "expected_calibration_error": float((gap * calibration["images"]).sum() / len(labels)),
    }


def score_classes(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return precision, recall, F1 and the number of images of each class.

    Parameters
    ----------
    predictions : DataFrame
        A row an image: the names of the class that it is of, ``actual``, and of the one that the
        model takes it for, ``predicted``.
    classes : list of str
        Names of all classes.

    Returns
    -------
    DataFrame
        A row a class, in the order of `classes`: ``class``, ``precision``, ``recall``, ``f1`` and
        ``images``; NaN where a score is not defined.
    """
    precision, recall, f1, images = precision_recall_fscore_support(
        predictions["actual"], predictions["predicted"], labels=classes, zero_division=np.nan
    )
    return pd.DataFrame(
        {"class": classes, "precision": precision, "recall": recall, "f1": f1, "images": images}
    )
