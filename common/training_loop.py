"""The loop over epochs and batches, on one device or several."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from common.augmentation import AugmentParams, augment
from common.backend import keras, tf
from common.checkpoint import History
from common.console import InputError, progress
from common.devices import check_equal_weights, machine_of, separate_random_layers
from common.params import Seed
from common.splits import Split

BATCHES_PER_CALL = 16  # that TensorFlow works through while Python makes the next ready
VALIDATION_BATCH = 500

# What is printed of an epoch, and how other programs read the seconds that it took.
EPOCH_LINE = (
    "train: epoch {epoch}/{epochs}, validation loss {validation_loss:.4f}, accuracy "
    "{validation_accuracy:.4f}; training loss {train_loss:.4f}, accuracy {train_accuracy:.4f}; "
    "{seconds:.1f} s"
)
EPOCH_SECONDS = re.compile(r"^train: epoch .*; ([0-9.]+) s$", re.MULTILINE)

Steps = Callable[[np.ndarray, np.ndarray, int], dict[str, tf.Tensor]]
Transform = Callable[[np.ndarray], np.ndarray]
Prepared = TypeVar("Prepared")


class LoopParams(AugmentParams):
    """What the loop needs of params.yaml."""

    seed: Seed
    epochs: int = Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    batch_size: int = Field(ge=1, le=65_536, description="a whole number from 1 to 65536")
    label_smoothing: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    class_weight: Literal["none", "balanced"] = Field(description="none or balanced")
    keep: Literal["last", "best"] = Field(description="last or best")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        description="a whole number from 1, or null"
    )


def make_steps(
    model: keras.Model,
    batch_size: int,
    *,
    training: bool,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
) -> Steps:
    """Return a function that takes one step of training or validation for each batch.

    Parameters
    ----------
    model : keras.Model
        What is trained or validated, on the devices of its `distribute_strategy`.
    batch_size : int
        Images a step, on all devices together.
    training : bool
        Whether it is trained.
    class_weights : ndarray of float32, shape (classes,), optional
        How much the loss of an image counts in training, by its label; 1 if not given.
    label_smoothing : float, default 0
        Share of each label that is spread evenly over all classes, 0 to below 1 [1]_. It is for
        training: a loss of validation is to be that of the labels as they are.

    Returns
    -------
    callable
        It takes this machine's images, uint8 (n, H, W, 1), and labels, int64 (n,), in their
        order, and the number of images of all machines. It returns loss and accuracy over all
        images since the model's metrics were reset, and how many steps passed before the loss
        was no longer a number. The loop over the batches is part of TensorFlow's graph: Python
        is asked once for many.

    Notes
    -----
    Keras takes the mean of the loss over a device's share, and then over the devices. Where a
    batch does not divide evenly, the images of a smaller share are given less weight, so that
    the gradient is that of the mean over the batch; in the loss that is reported they count as
    much as the others.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception architecture for computer vision",
       CVPR 2016.
    """
    classes = model.output_shape[-1]
    strategy = model.distribute_strategy
    rank, machines = machine_of(strategy)
    devices = strategy.num_replicas_in_sync
    devices_per_machine = devices // machines
    images_per_machine = len(range(batch_size)[rank::machines])
    loss_tracker = next(metric for metric in model.metrics if metric.name == "loss")
    keras_step = model.train_step if training else model.test_step
    # One graph for any number of images: to make another takes a second.
    images_spec = tf.TensorSpec(model.input_shape, tf.uint8)
    labels_spec = tf.TensorSpec([None], tf.int64)
    count_spec = tf.TensorSpec([], tf.int32)

    def step_on_device(images: tf.Tensor, labels: tf.Tensor, batch_images: tf.Tensor) -> tf.Tensor:
        """Take a step with one device's share of a batch; return 1 if the loss is finite."""
        if devices_per_machine > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            device = replica % devices_per_machine
            images = images[device::devices_per_machine]
            labels = labels[device::devices_per_machine]
        targets = tf.one_hot(labels, classes)
        if label_smoothing:
            targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
        batch = (tf.cast(images, tf.float32) / 255.0, targets)
        weights = [] if class_weights is None else [tf.gather(class_weights, labels)]
        if training and devices > 1:
            share = tf.cast(tf.size(labels) * devices / batch_images, tf.float32)
            shared_weights = share * (weights[0] if weights else tf.ones(tf.shape(labels)))
            before = tf.identity(loss_tracker.total)
            results = keras_step((*batch, shared_weights))
            unshared = tf.math.divide_no_nan(loss_tracker.total - before, share)
            loss_tracker.total.assign(before + unshared)
        else:
            results = keras_step((*batch, *weights))
        return tf.cast(tf.math.is_finite(results["loss"]), tf.int32)

    @tf.function(input_signature=[images_spec, labels_spec, count_spec])
    def steps(images: tf.Tensor, labels: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        finite = tf.constant(0)
        for number in tf.range(-(-count // batch_size)):
            # A step reads the weights that the step before it wrote.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            start = number * images_per_machine
            end = start + images_per_machine
            batch_images = tf.minimum(batch_size, count - number * batch_size)
            batch = (images[start:end], labels[start:end], batch_images)
            finite += strategy.reduce("SUM", strategy.run(step_on_device, batch), axis=None)
        # A loss that is no number on one device is so on all of them at the next step.
        return model.get_metrics_result() | {"finite": finite // devices}

    return steps


def one_ahead(function: Callable[[int], Prepared], arguments: Iterable[int]) -> Iterator[Prepared]:
    """Yield the results of a function in turn, the next one made while the last one is used."""
    thread = ThreadPoolExecutor(max_workers=1)
    waiting = None
    try:
        for argument in arguments:
            made, waiting = waiting, thread.submit(function, argument)
            if made is not None:
                yield made.result()
        if waiting is not None:
            yield waiting.result()
    finally:
        # Whoever stops in the middle, as at Ctrl-C, does not wait for what nobody will use.
        thread.shutdown(wait=False, cancel_futures=True)


def run_epoch(
    model: keras.Model,
    steps: Steps,
    split: Split,
    order: np.ndarray,
    batch_size: int,
    title: str,
    transform: Transform = lambda images: images,
) -> dict[str, float]:
    """Run one epoch of training or validation.

    Parameters
    ----------
    model : keras.Model
        Its metrics are reset first.
    steps : callable
        From `make_steps`.
    split : Split
        The images and labels.
    order : ndarray of int64, shape (N,)
        The order in which they are taken.
    batch_size : int
        Images a step. Image i of a batch belongs to machine i modulo the number of machines.
    title : str
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
    rank, machines = machine_of(model.distribute_strategy)
    images_per_call = batch_size * BATCHES_PER_CALL

    starts = range(0, len(order), images_per_call)

    def prepare(start: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return what a call of `steps` takes, from this place in the order on."""
        indices = order[start : start + images_per_call]
        is_of_this_machine = np.arange(len(indices)) % batch_size % machines == rank
        own = indices[is_of_this_machine]
        return transform(split.images[own]), split.labels[own], len(indices)

    model.reset_metrics()
    with progress(title, len(order), "images") as bar:
        for (images, labels, count), start in zip(one_ahead(prepare, starts), starts, strict=True):
            results = steps(images, labels, count)
            finite_steps, taken_steps = int(results.pop("finite")), -(-count // batch_size)
            if finite_steps < taken_steps:
                raise InputError(
                    f"{title}: the loss is not a finite number at step "
                    f"{start // batch_size + finite_steps + 1} of {-(-len(order) // batch_size)}; "
                    "a smaller learning_rate may help"
                )
            bar.update(count)
    return {name: float(value) for name, value in results.items()}


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Let the model hold the average of its weights meanwhile, if its optimizer keeps one."""
    weights = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    model.set_weights(weights)


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return a weight for each class, so that all classes together count the same [1]_.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        The labels of all training images.
    classes : int
        Number of classes.

    Returns
    -------
    ndarray of float32, shape (classes,)
        ``N / (classes * number of images of the class)``; 0 for a class without an image.

    References
    ----------
    .. [1] G. King and L. Zeng, "Logistic regression in rare events data", Political Analysis 9,
       2001; as scikit-learn's ``class_weight="balanced"``.
    """
    images = np.bincount(labels, minlength=classes)
    weights = np.zeros(classes, np.float32)
    np.divide(len(labels) / classes, images, out=weights, where=images > 0, casting="unsafe")
    return weights


def best_epoch(history: History) -> int:
    """Return the number of the epoch with the lowest validation loss, the first of equals."""
    return 1 + int(np.argmin([row["validation_loss"] for row in history]))


def is_stuck(history: History, patience: int | None) -> bool:
    """Return whether the last `patience` epochs did not lower the validation loss."""
    if patience is None or not history:
        return False
    return len(history) - best_epoch(history) >= patience


def fit(
    model: keras.Model,
    params: LoopParams,
    train: Split,
    validation: Split,
    history: History,
    best_weights: list[np.ndarray],
    after_epoch: Callable[[History, list[np.ndarray]], None],
) -> None:
    """Train for `epochs`, from the epoch on that follows those of `history`.

    With `ema`, the model is validated with the averaged weights and holds them at the end. With
    `patience`, training ends after so many epochs in a row that did not lower the validation
    loss. With ``keep: best`` the model holds at the end the weights of the epoch of the lowest
    validation loss [1]_.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    params : LoopParams
        The parameters.
    train, validation : Split
        The images.
    history : list of dict
        ``epoch``, and ``loss`` and ``accuracy`` of training and validation, for each epoch that
        has ended; it grows.
    best_weights : list of ndarray
        With ``keep: best``, the weights of the best epoch of `history`.
    after_epoch : callable
        Called with `history` and the best weights after each epoch; of several machines, on the
        first alone.

    References
    ----------
    .. [1] L. Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade,
       Springer, 1998.
    """
    rank, _ = machine_of(model.distribute_strategy)
    separate_random_layers(model)
    class_weights = None
    if params.class_weight == "balanced":
        class_weights = balanced_weights(train.labels, model.output_shape[-1])
    training_steps = make_steps(
        model,
        params.batch_size,
        training=True,
        class_weights=class_weights,
        label_smoothing=params.label_smoothing,
    )
    validation_steps = make_steps(model, VALIDATION_BATCH, training=False)
    validation_order = np.arange(len(validation))
    for epoch in range(len(history) + 1, params.epochs + 1):
        if is_stuck(history, params.patience):
            print(f"train: no better epoch in {params.patience}: the training ends", flush=True)
            break
        start, title = time.perf_counter(), f"epoch {epoch}/{params.epochs}"
        order = np.random.default_rng([params.seed, epoch]).permutation(len(train))
        rng = np.random.default_rng([params.seed, epoch, 1, rank])
        transform = partial(augment, params=params, rng=rng)
        trained = run_epoch(
            model, training_steps, train, order, params.batch_size, title, transform
        )
        with averaged_weights(model):
            validated = run_epoch(
                model,
                validation_steps,
                validation,
                validation_order,
                VALIDATION_BATCH,
                f"{title}, validation",
            )
            validated_weights = model.get_weights() if params.keep == "best" else []
        row: dict[str, float] = {"epoch": epoch}
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"validation_{name}": value for name, value in validated.items()}
        history.append(row)
        if best_epoch(history) == epoch:
            best_weights = validated_weights
        if rank == 0:
            after_epoch(history, best_weights)
            seconds = time.perf_counter() - start
            print(EPOCH_LINE.format(**row, epochs=params.epochs, seconds=seconds), flush=True)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if params.keep == "best":
        model.set_weights(best_weights)
    check_equal_weights(model)
