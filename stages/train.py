"""Stage 3, `train`: arrays and an architecture to a model.

Reads   data/prepared/{train,validation}, models/architecture.json
Writes  models/mnist_cnn_model.h5: the trained, compiled model
        metrics/train.json: loss and accuracy after the last epoch
        plots/training.csv: the same after every epoch, written as each epoch ends

The order of the batches, and how augmentation changes their images, are functions of `seed` and
the epoch. After each epoch the state of the run is kept in models/checkpoint.npz: a run that was
interrupted goes on from there, and ends with the same bytes. The file is removed when the run
ends.

Several devices share each batch, and with `TF_CONFIG` in the environment several machines: each
runs this stage, and the first of them writes.
"""

import contextlib
import csv
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import h5py
import numpy as np
from pydantic import Field

from stages import checkpoint
from stages.arrays import Split, read_split
from stages.augment import AugmentParams, augment
from stages.backend import keras, tf
from stages.cluster import (
    agree,
    losing_none,
    machine_of,
    meet,
    part_random_layers,
    read_cluster,
    strategy_of,
)
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
AVX_512F = 13  # OpenCV's CPU_AVX_512F, which its Python module does not name
STEPS_A_CALL = 16  # batches that TensorFlow works through before Python has the next ready
VALIDATION_BATCH = 500

Schedule = keras.optimizers.schedules.LearningRateSchedule
Steps = Callable[[np.ndarray, np.ndarray, int], dict[str, tf.Tensor]]
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
    strategy = tf.distribute.get_strategy()
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
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Statistics of the whole batch, not of each device's share.
            layer.synchronized = strategy.num_replicas_in_sync > 1
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
    model.optimizer.build(model.trainable_variables)
    # Keras would make the variables of the metrics in the first step, too late for several devices.
    none = tf.zeros([0, model.output_shape[-1]])
    tf.function(strategy.run, autograph=False)(model.compute_metrics, (None, none, none))
    return model


def warn_of_slow_precision(model: keras.Model) -> None:
    """Say so where bfloat16 is no gain: without AVX-512, TensorFlow computes it without oneDNN."""
    if (
        any(layer.compute_dtype == "bfloat16" for layer in model.layers)
        and not tf.config.list_physical_devices("GPU")
        and not cv2.checkHardwareSupport(AVX_512F)
    ):
        print(
            "train: warning: precision is mixed_bfloat16, and this processor has no AVX-512: "
            "float32 would be several times as fast",
            flush=True,
        )


def steps_of(model: keras.Model, batch_size: int, *, training: bool) -> Steps:
    """Return a function that takes one step of training or validation for each batch.

    Parameters
    ----------
    model : keras.Model
        What is trained or validated, on the devices of its `distribute_strategy`.
    batch_size : int
        Images a step, on all devices together.
    training : bool
        Whether it is trained.

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
    """
    classes = model.output_shape[-1]
    strategy = model.distribute_strategy
    rank, machines = machine_of(strategy)
    replicas = strategy.num_replicas_in_sync
    local = replicas // machines
    here = len(range(batch_size)[rank::machines])
    tracker = next(metric for metric in model.metrics if metric.name == "loss")
    step = model.train_step if training else model.test_step
    # One graph for any number of images: to make another takes a second.
    images_like = tf.TensorSpec(model.input_shape, tf.uint8)
    count_like = tf.TensorSpec([], tf.int32)

    def step_on_one(images: tf.Tensor, labels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        if local > 1:
            device = tf.distribute.get_replica_context().replica_id_in_sync_group % local
            images, labels = images[device::local], labels[device::local]
        batch = (tf.cast(images, tf.float32) / 255.0, tf.one_hot(labels, classes))
        if training and replicas > 1:
            weight = tf.cast(tf.size(labels) * replicas / size, tf.float32)
            before = tf.identity(tracker.total)
            logs = step((*batch, tf.fill(tf.shape(labels), weight)))
            share = tf.math.divide_no_nan(tracker.total - before, weight)
            tracker.total.assign(before + share)
        else:
            logs = step(batch)
        return tf.cast(tf.math.is_finite(logs["loss"]), tf.int32)

    @tf.function(input_signature=[images_like, tf.TensorSpec([None], tf.int64), count_like])
    def steps(images: tf.Tensor, labels: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        finite = tf.constant(0)
        for number in tf.range(-(-count // batch_size)):
            # A step reads the weights that the step before it wrote.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            start, size = number * here, tf.minimum(batch_size, count - number * batch_size)
            batch = (images[start : start + here], labels[start : start + here], size)
            finite += strategy.reduce("SUM", strategy.run(step_on_one, batch), axis=None)
        # A loss that is no number on one device is so on all of them at the next step.
        return model.get_metrics_result() | {"finite": finite // replicas}

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
        Images a step. Image i of a batch belongs to machine i modulo the number of machines.
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
    rank, machines = machine_of(model.distribute_strategy)
    model.reset_metrics()
    size = batch_size * STEPS_A_CALL
    with progress(what, len(order), "images") as bar:
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            mine = indices[np.arange(len(indices)) % batch_size % machines == rank]
            logs = steps(transform(split.images[mine]), split.labels[mine], len(indices))
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
    model: keras.Model,
    params: TrainParams,
    train: Split,
    validation: Split,
    fingerprint: dict[str, str],
    state: bytes,
) -> checkpoint.Rows:
    """Train for `epochs`, from the last finished epoch if the run was interrupted.

    With `ema`, the model is validated with the averaged weights and holds them at the end.

    Parameters
    ----------
    model : keras.Model
        Compiled. Of several machines, the first alone writes what this function writes.
    params : TrainParams
        `epochs`, `batch_size` and `seed`.
    train, validation : Split
        The images.
    fingerprint : dict of str to str
        That of the run.
    state : bytes
        The checkpoint; empty if there is none.

    Returns
    -------
    list of dict
        ``epoch``, and ``loss`` and ``accuracy`` of training and validation, for each epoch.
    """
    rank, _ = machine_of(model.distribute_strategy)
    variables = [*model.variables, *model.optimizer.variables]
    rows = checkpoint.restore(state, fingerprint, variables)
    part_random_layers(model)
    training_steps = steps_of(model, params.batch_size, training=True)
    validation_steps = steps_of(model, VALIDATION_BATCH, training=False)
    for number in range(len(rows) + 1, params.epochs + 1):
        start, what = time.perf_counter(), f"epoch {number}/{params.epochs}"
        order = np.random.default_rng([params.seed, number]).permutation(len(train))
        rng = np.random.default_rng([params.seed, number, 1, rank])
        transform = partial(augment, params=params, rng=rng)
        logs = epoch(model, training_steps, train, order, params.batch_size, what, transform)
        row = {"epoch": number} | {f"train_{name}": value for name, value in logs.items()}
        order, what = np.arange(len(validation)), f"{what}, validation"
        with averaged(model):
            logs = epoch(model, validation_steps, validation, order, VALIDATION_BATCH, what)
        row |= {f"validation_{name}": value for name, value in logs.items()}
        rows.append(row)
        if rank:
            continue
        checkpoint.save(CHECKPOINT, fingerprint, rows, variables)
        write_table(TRAINING, rows)
        print(
            f"train: {what} loss {row['validation_loss']:.4f}, accuracy "
            f"{row['validation_accuracy']:.4f}; training loss {row['train_loss']:.4f}, "
            f"accuracy {row['train_accuracy']:.4f}; {time.perf_counter() - start:.1f} s",
            flush=True,
        )
    model.optimizer.finalize_variable_values(model.trainable_variables)
    agree(model)
    return rows


def main() -> None:
    """Run the stage."""
    params = read_params(TrainParams)
    train, validation = read_split(PREPARED / "train"), read_split(PREPARED / "validation")
    cluster = read_cluster()
    fingerprint = checkpoint.fingerprint(params.model_dump_json(), INPUTS)
    state = meet(cluster, fingerprint, CHECKPOINT.read_bytes() if CHECKPOINT.exists() else b"")
    strategy = strategy_of(cluster)
    fingerprint["number of devices"] = str(strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        model = compiled_model(params, train)
    warn_of_slow_precision(model)
    if not cluster.is_chief:
        with losing_none(cluster):
            fit(model, params, train, validation, fingerprint, state)
        return
    with restoring(TRAINING):
        try:
            with losing_none(cluster):
                rows = fit(model, params, train, validation, fingerprint, state)
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
    change where there is none. The file is made in memory, by the function that is behind
    `Model.save`: where HDF5 itself meets a full disk, it ends the process.
    """
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5  # after the backend

    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        save_model_to_hdf5(model, file)
        content = file.id.get_file_image()
    path.write_bytes(content)


if __name__ == "__main__":
    run("train", main)
