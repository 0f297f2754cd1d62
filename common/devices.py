"""The devices that share one training: which there are, and what each must do by itself."""

import faulthandler
import hashlib
import signal

from common.backend import keras, tf, without_greetings
from common.workers import WAIT_SECONDS, Cluster


def strategy_of(cluster: Cluster) -> tf.distribute.Strategy:
    """Return how TensorFlow shares the work: over workers, devices, or not at all."""
    if cluster.workers == 1:
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) == 1:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    terminate = signal.getsignal(signal.SIGTERM)
    faulthandler.dump_traceback_later(WAIT_SECONDS, exit=True)  # a worker may die just here
    with without_greetings():
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGTERM, terminate)  # TensorFlow would note the signal and go on
    return strategy


def machine_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return the rank of this machine among the machines, and their number."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 0, 1
    return resolver.task_id, resolver.cluster_spec().num_tasks("worker")


def separate_random_layers(model: keras.Model) -> None:
    """Give each device random numbers of its own; the chief's first device keeps its own."""
    strategy = model.distribute_strategy
    rank, _ = machine_of(strategy)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            copies = strategy.experimental_local_results(variable.value)
            for index, copy in enumerate(copies, start=rank * len(copies)):
                copy.assign_add([index, 0])


def check_equal_weights(model: keras.Model) -> None:
    """Check that all machines ended with the same weights, bit for bit.

    Raises
    ------
    RuntimeError
        If they did not: a processor or the network is at fault.
    """
    strategy = model.distribute_strategy
    rank, machines = machine_of(strategy)
    if machines == 1:
        return
    weights = b"".join(weight.tobytes() for weight in model.get_weights())
    digest = hashlib.sha256(weights).hexdigest()
    number = tf.constant([int(digest[:15], 16)])
    numbers = strategy.experimental_distribute_values_from_function(lambda _: number)
    if len(set(strategy.gather(numbers, axis=0).numpy())) > 1:
        raise RuntimeError("the machines ended with different weights")
    print(f"train: worker {rank} of {machines}: the same weights on all, {digest[:16]}", flush=True)
