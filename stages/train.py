"""Stage 3, `train`: arrays and an architecture to a model.

Reads   data/prepared/{train,validation}, models/architecture.json
Writes  models/mnist_cnn_model.h5: the trained, compiled model
        metrics/train.json: loss and accuracy after the last epoch
        plots/training.csv: the same after every epoch, written as each epoch ends

The order of the batches, and how augmentation changes their images, are functions of `seed` and
the epoch. After each epoch the state of the run is kept in models/checkpoint.npz: a run that was
interrupted goes on from there, and ends with the same bytes. The file is removed when the run
ends.
"""

import contextlib
import csv
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from stages import checkpoint
from stages.arrays import Split, read_split
from stages.augment import AugmentParams, augment
from stages.backend import keras, tf
from stages.console import InputError, progress, run
from stages.network import read_architecture
from stages.outputs import remove, replacing, restoring, write_json
from stages.params import Seed, read_params

PREPARED = Path("data/prepared")
ARCHITECTURE = Path("models/architecture.json")
MODEL = Path("models/mnist_cnn_model.h5")
METRICS = Path("metrics/train.json")
TRAINING = Path("plots/training.csv")
CHECKPOINT = Path("models/checkpoint.npz")
INPUTS = [
    ARCHITECTURE,
    *(PREPARED / s / f"{n}.npy" for s in ("train", "validation") for n in ("images", "labels")),
]

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}
STEPS_A_CALL = 16  # batches that TensorFlow works through before Python has the next ready
VALIDATION_BATCH = 500

Schedule = keras.optimizers.schedules.LearningRateSchedule
Steps = Callable[[np.ndarray, np.ndarray], dict[str, tf.Tensor]]
Transform = Callable[[np.ndarray], np.ndarray]


class TrainParams(AugmentParams):
    """What `train` reads of params.yaml."""

    seed: Seed
    epochs: int = Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    batch_size: int = Field(ge=1, le=65_536, description="a whole number from 1 to 65536")
    optimizer: Literal["adam", "rmsprop", "sgd"] = Field(description="adam, rmsprop or sgd")
    learning_rate: float = Field(gt=0, le=10, description="a number above 0, at most 10")
    schedule: Literal["constant", "one_cycle"] = Field(description="constant or one_cycle")
    label_smoothing: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    weight_decay: float = Field(ge=0, le=1, description="a number from 0 to 1")
    ema: float = Field(ge=0, lt=1, description="a number from 0 to below 1")


def learning_rate(params: TrainParams, images: int) -> float | Schedule:
    """Return the learning rate, or its schedule over the steps of the training.

    Parameters
    ----------
    params : TrainParams
        With ``one_cycle`` [1]_ the rate rises from 1/25 of `learning_rate` to `learning_rate`
        in the first 30% of the steps, linearly, and falls to 0 along a cosine in the rest.
    images : int
        Images an epoch.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks
       using large learning rates", arXiv:1708.07120, 2018.
    """
    if params.schedule == "constant":
        return params.learning_rate
    steps = params.epochs * -(-images // params.batch_size)
    warmup = round(0.3 * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=params.learning_rate / 25,
        warmup_target=params.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )


def compiled_model(params: TrainParams, train: Split) -> keras.Model:
    """Return the untrained, compiled model.

    Parameters
    ----------
    params : TrainParams
        With `label_smoothing`, that share of each label is spread evenly over all classes
        [1]_; with `weight_decay`, each step takes that share of the weights, times the
        learning rate, off them, apart from the gradient [2]_; with `ema`, the optimizer keeps
        an average of the weights of all steps, of which each step keeps that share [3]_.
    train : Split
        The images that the model must take, and their labels.

    Raises
    ------
    InputError
        If the architecture does not take images or give classes of this kind.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception architecture for computer vision",
       CVPR 2016.
    .. [2] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    .. [3] B. T. Polyak and A. B. Juditsky, "Acceleration of stochastic approximation by
       averaging", SIAM Journal on Control and Optimization 30(4), 1992.
    """
    model = read_architecture(ARCHITECTURE)
    expected, found = (None, *train.images.shape[1:]), model.input_shape
    if found != expected:
        raise InputError(
            f"{ARCHITECTURE} takes images of shape {found}, {PREPARED} holds {expected}; "
            "run `dvc repro`"
        )
    if train.labels.max() >= model.output_shape[-1]:
        raise InputError(
            f"{ARCHITECTURE} gives {model.output_shape[-1]} classes, {PREPARED} holds label "
            f"{train.labels.max()}; run `dvc repro`"
        )
    model.compile(
        optimizer=OPTIMIZERS[params.optimizer](
            learning_rate(params, len(train)),
            weight_decay=params.weight_decay or None,
            use_ema=params.ema > 0,
            ema_momentum=params.ema,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def steps_of(model: keras.Model, step: Callable, batch_size: int) -> Steps:
    """Return a function that takes one step of training or validation for each batch.

    Parameters
    ----------
    model : keras.Model
        What is trained or validated.
    step : callable
        Its `train_step` or `test_step`.
    batch_size : int
        Images a step.

    Returns
    -------
    callable
        It takes images, uint8 (n, H, W, 1), and labels, int64 (n,), in their order, and
        returns loss and accuracy over all images since the model's metrics were reset, and
        how many steps passed before the loss was no longer a number. The loop over the
        batches is part of TensorFlow's graph: Python is asked once for many.
    """
    classes = model.output_shape[-1]
    # One graph for any number of images: to make another takes a second.
    images_like = tf.TensorSpec(model.input_shape, tf.uint8)

    @tf.function(input_signature=[images_like, tf.TensorSpec([None], tf.int64)])
    def steps(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        logs = {"loss": tf.constant(0.0), "accuracy": tf.constant(0.0)}
        finite = tf.constant(0)
        for start in tf.range(0, tf.shape(labels)[0], batch_size):
            # A step reads the weights that the step before it wrote.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            batch = tf.cast(images[start : start + batch_size], tf.float32) / 255.0
            targets = tf.one_hot(labels[start : start + batch_size], classes)
            logs = step((batch, targets))
            finite += tf.cast(tf.math.is_finite(logs["loss"]), tf.int32)
        return logs | {"finite": finite}

    return steps


def epoch(
    model: keras.Model,
    steps: Steps,
    split: Split,
    order: np.ndarray,
    batch_size: int,
    what: str,
    transform: Transform = lambda images: images,
) -> dict[str, float]:
    """Run one epoch of training or validation.

    Parameters
    ----------
    model : keras.Model
        Its metrics are reset first.
    steps : callable
        From `steps_of`.
    split : Split
        The images and labels.
    order : ndarray of int64, shape (N,)
        The order in which they are taken.
    batch_size : int
        Images a step.
    what : str
        What is going on, for the progress bar and the error.
    transform : callable, optional
        Changes images, uint8 (n, H, W, 1), before they are used.

    Returns
    -------
    dict of str to float
        Mean ``loss`` and ``accuracy`` over the images.

    Raises
    ------
    InputError
        If the loss is no longer a finite number, with the step at which that came.
    """
    model.reset_metrics()
    size = batch_size * STEPS_A_CALL
    with progress(what, len(order), "images") as bar:
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            logs = steps(transform(split.images[indices]), split.labels[indices])
            finite, count = int(logs.pop("finite")), -(-len(indices) // batch_size)
            if finite < count:
                raise InputError(
                    f"{what}: the loss is not a finite number at step "
                    f"{start // batch_size + finite + 1} of {-(-len(order) // batch_size)}; a "
                    "smaller learning_rate may help"
                )
            bar.update(len(indices))
    return {name: float(value) for name, value in logs.items()}


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Let the model hold the average of its weights meanwhile, if its optimizer keeps one."""
    weights = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    model.set_weights(weights)


def fit(
    model: keras.Model, params: TrainParams, train: Split, validation: Split
) -> checkpoint.Rows:
    """Train for `epochs`, from the last finished epoch if the run was interrupted.

    With `ema`, the model is validated with the averaged weights and holds them at the end.

    Returns
    -------
    list of dict
        ``epoch``, and ``loss`` and ``accuracy`` of training and validation, for each epoch.
    """
    model.optimizer.build(model.trainable_variables)
    state = [*model.variables, *model.optimizer.variables]
    fingerprint = checkpoint.fingerprint(params.model_dump_json(), INPUTS)
    rows = checkpoint.restore(CHECKPOINT, fingerprint, state)
    training_steps = steps_of(model, model.train_step, params.batch_size)
    validation_steps = steps_of(model, model.test_step, VALIDATION_BATCH)
    for number in range(len(rows) + 1, params.epochs + 1):
        start, what = time.perf_counter(), f"epoch {number}/{params.epochs}"
        order = np.random.default_rng([params.seed, number]).permutation(len(train))
        rng = np.random.default_rng([params.seed, number, 1])
        transform = partial(augment, params=params, rng=rng)
        logs = epoch(model, training_steps, train, order, params.batch_size, what, transform)
        row = {"epoch": number} | {f"train_{name}": value for name, value in logs.items()}
        order, what = np.arange(len(validation)), f"{what}, validation"
        with averaged(model):
            logs = epoch(model, validation_steps, validation, order, VALIDATION_BATCH, what)
        row |= {f"validation_{name}": value for name, value in logs.items()}
        rows.append(row)
        checkpoint.save(CHECKPOINT, fingerprint, rows, state)
        write_table(TRAINING, rows)
        print(
            f"train: {what} loss {row['validation_loss']:.4f}, accuracy "
            f"{row['validation_accuracy']:.4f}; training loss {row['train_loss']:.4f}, "
            f"accuracy {row['train_accuracy']:.4f}; {time.perf_counter() - start:.1f} s",
            flush=True,
        )
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return rows


def main() -> None:
    """Run the stage."""
    params = read_params(TrainParams)
    train, validation = read_split(PREPARED / "train"), read_split(PREPARED / "validation")
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    model = compiled_model(params, train)
    with restoring(TRAINING):
        try:
            rows = fit(model, params, train, validation)
        except InputError:
            remove(CHECKPOINT)  # to go on from it would end in the same way
            raise
        last = {name: value for name, value in rows[-1].items() if name != "epoch"}
        with replacing(MODEL) as file, replacing(METRICS) as metrics:
            write_table(TRAINING, rows)
            save(model, file)
            write_json(metrics, last)
    remove(CHECKPOINT)


def write_table(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of numbers as CSV, six decimals."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(
            {k: v if isinstance(v, int) else f"{v:.6f}" for k, v in row.items()} for row in rows
        )


def save(model: keras.Model, path: Path) -> None:
    """Write the model as HDF5, as the notebook does.

    Keras advises its newer .keras format; that one holds the date, so that DVC would see a
    change where there is none.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    h5 = path.with_suffix(".h5")  # Keras chooses the format by the suffix
    model.save(h5)
    h5.rename(path)


if __name__ == "__main__":
    run("train", main)
