"""Stage 3, `train`: arrays and an architecture to a model.

Reads   data/prepared/{train,validation}, models/architecture.json
Writes  models/mnist_cnn_model.h5: the trained, compiled model
        metrics/train.json: loss and accuracy after the epoch whose weights the model holds
        plots/training.csv: the same after every epoch
        metrics/provenance.json: processor, devices, threads and versions it was trained with

train.json and training.csv are written anew as each epoch ends, as if it were the last: so a run
is watched.

The order of the batches, and how augmentation changes their images, are functions of `seed` and
the epoch. After each epoch the state of the run is kept in models/checkpoint.npz: a run that was
interrupted goes on from there, and ends with the same bytes. The file is removed when the run
ends.

Several devices share each batch, and with `TF_CONFIG` in the environment several machines: each
runs this stage, and the first of them writes.
"""

import csv
from functools import partial
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from pydantic import Field

from common import checkpoint
from common.backend import keras, tf, use_threads
from common.checkpoint import History
from common.console import InputError, check_unchanged, run
from common.declarations import warn_of_changes
from common.devices import say_what_trains, strategy_of, warn_of_slow_precision
from common.fused_adam import FusedAdam
from common.model_files import read_architecture
from common.outputs import remove, replacing, restoring, write_json
from common.params import Threads, read_params
from common.provenance import PROVENANCE, provenance
from common.splits import Split, read_split
from common.training_loop import LoopParams, best_epoch, fit
from common.training_network import finished_model, training_network
from common.workers import losing_none, meet, read_cluster

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
    "adam": FusedAdam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}

Schedule = keras.optimizers.schedules.LearningRateSchedule


class TrainParams(LoopParams):
    """What `train` reads of params.yaml."""

    threads: Threads
    optimizer: Literal["adam", "rmsprop", "sgd"] = Field(description="adam, rmsprop or sgd")
    learning_rate: float = Field(gt=0, le=10, description="a number above 0, at most 10")
    schedule: Literal["constant", "one_cycle"] = Field(description="constant or one_cycle")
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
    """Return the untrained, compiled model, as `training_network` arranges it.

    Parameters
    ----------
    params : TrainParams
        With `weight_decay`, each step takes that share of the weights, times the learning
        rate, off them, apart from the gradient [1]_; with `ema`, the optimizer keeps an average
        of the weights of all steps, of which each step keeps that share [2]_.
    train : Split
        The images that the model must take, and their labels.

    Raises
    ------
    InputError
        If the architecture does not take images or give classes of this kind.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    .. [2] B. T. Polyak and A. B. Juditsky, "Acceleration of stochastic approximation by
       averaging", SIAM Journal on Control and Optimization 30(4), 1992.
    """
    strategy = tf.distribute.get_strategy()
    model = training_network(read_architecture(ARCHITECTURE))
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
            name=params.optimizer,
        ),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    # Keras would make the variables of the metrics in the first step, too late for several devices.
    none = tf.zeros([0, model.output_shape[-1]])
    tf.function(strategy.run, autograph=False)(model.compute_metrics, (None, none, none))
    return model


def main() -> None:
    """Run the stage."""
    params = read_params(TrainParams)
    threads = use_threads(params.threads)
    train, validation = read_split(PREPARED / "train"), read_split(PREPARED / "validation")
    cluster = read_cluster()
    fingerprint = checkpoint.fingerprint(params.model_dump_json(), INPUTS)
    state = CHECKPOINT.read_bytes() if CHECKPOINT.exists() else b""
    state = meet(cluster, fingerprint, state)
    say_what_trains(threads)
    strategy = strategy_of(cluster)
    fingerprint["number of devices"] = str(strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        model = compiled_model(params, train)
    warn_of_slow_precision(model)
    variables = [*model.variables, *model.optimizer.variables]
    history, best_weights = checkpoint.restore(state, fingerprint, variables)

    def keep_state(history: History, best_weights: list[np.ndarray]) -> None:
        checkpoint.save(CHECKPOINT, fingerprint, history, variables, best_weights)
        write_numbers(history, params.keep)
        warn_of_changes()

    if not cluster.is_chief:
        with losing_none(cluster):
            fit(model, params, train, validation, history, best_weights, keep_state)
        return
    with restoring(TRAINING), restoring(METRICS):
        if history:
            write_numbers(history, params.keep)
        try:
            with losing_none(cluster):
                fit(model, params, train, validation, history, best_weights, keep_state)
        except InputError:
            remove(CHECKPOINT)  # to go on from it would end in the same way
            raise
        check_unchanged()  # if it fails, the checkpoint stays: with the earlier values it goes on
        with replacing(MODEL) as model_file, replacing(PROVENANCE) as provenance_file:
            save(finished_model(read_architecture(ARCHITECTURE), model), model_file)
            write_json(provenance_file, provenance(threads, cluster.workers))
    remove(CHECKPOINT)


def write_numbers(history: History, keep: str) -> None:
    """Write the table of all epochs, and the metrics of the one whose weights would be kept."""
    kept = history[best_epoch(history) - 1 if keep == "best" else -1]
    with replacing(TRAINING) as table, replacing(METRICS) as metrics:
        write_table(table, history)
        write_json(metrics, {name: value for name, value in kept.items() if name != "epoch"})


def write_table(path: Path, history: History) -> None:
    """Write a row for each epoch as CSV, with six decimals."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0], lineterminator="\n")
        table.writeheader()
        for row in history:
            epoch = row["epoch"]
            table.writerow({name: f"{value:.6f}" for name, value in row.items()} | {"epoch": epoch})


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
