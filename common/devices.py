"""The devices that share one training: which there are, and what each must do by itself."""

import faulthandler
import hashlib
import importlib.metadata
import os
import signal
from pathlib import Path

import cv2

from common.backend import keras, tf, unsaid, without_greetings
from common.processors import usable_processors
from common.workers import WAIT_SECONDS, Cluster

# OpenCV's numbers of what a processor may have, which its Python module does not name.
INSTRUCTIONS = {"AVX-512": 13, "AVX2": 11}
DEVICE_FILES = Path("/dev")
CUDA = "nvidia-cuda-runtime-cu12"  # a package of requirements-gpu.txt
NO_CUDA = "this machine has an NVIDIA GPU, but CUDA is not installed; `make GPU=1` installs it"


def has_avx_512() -> bool:
    """Return whether the processor has AVX-512."""
    return bool(cv2.checkHardwareSupport(INSTRUCTIONS["AVX-512"]))


def gpu_names() -> list[str]:
    """Return the names of the GPUs that TensorFlow uses."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return [str(one.get("device_name", "of an unknown kind")) for one in details]


def describe_devices(threads: int) -> str:
    """Return what trains: ``1 GPU: NVIDIA H100 80GB HBM3``, or ``2 threads, 2 cores, AVX-512``.

    The cores are those that this process may use. With them stands the largest set of vector
    instructions that decides how fast they are, where there is one.
    """
    gpus = gpu_names()
    if gpus:
        return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {', '.join(gpus)}"
    cores = usable_processors()
    counted = ((threads, "thread"), (cores, "core"))
    described = [f"{number} {what}{'s' if number > 1 else ''}" for number, what in counted]
    supported = [name for name, cpu in INSTRUCTIONS.items() if cv2.checkHardwareSupport(cpu)]
    return ", ".join([*described, *supported[:1]])


def why_no_gpu() -> str | None:
    """Return why TensorFlow uses no GPU where one is to be expected, and what would help.

    It is to be expected where the packages for one are installed, or the system shows one.
    Whoever hides all GPUs by `CUDA_VISIBLE_DEVICES` expects none.
    """
    if tf.config.list_physical_devices("GPU"):
        return None
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    is_shown = any(DEVICE_FILES.glob("nvidia[0-9]*"))
    try:
        importlib.metadata.distribution(CUDA)
    except importlib.metadata.PackageNotFoundError:
        return NO_CUDA if is_shown else None
    if not is_shown:
        return (
            "CUDA is installed (`make GPU=1`), but the system shows no NVIDIA GPU; where there is "
            "one, its driver is missing, and `nvidia-smi` fails, too"
        )
    reasons = [line.rpartition("] ")[2] for line in unsaid if "cuInit" in line]
    return (
        "CUDA is installed and the system shows an NVIDIA GPU, but TensorFlow cannot use it: "
        + (reasons[-1] if reasons else "`nvidia-smi` may say why")
    )


def say_what_trains(threads: int) -> None:
    """Print which devices train, and why no GPU does where one is to be expected."""
    print(f"train: training on {describe_devices(threads)}", flush=True)
    reason = why_no_gpu()
    if reason:
        print(f"train: warning: no GPU is used: {reason}", flush=True)


def warn_of_slow_precision(model: keras.Model) -> None:
    """Say so where bfloat16 is no gain: without AVX-512, TensorFlow computes it without oneDNN."""
    if (
        any(layer.compute_dtype == "bfloat16" for layer in model.layers)
        and not tf.config.list_physical_devices("GPU")
        and not has_avx_512()
    ):
        print(
            "train: warning: precision is mixed_bfloat16, and this processor has no AVX-512: "
            "float32 would be several times as fast",
            flush=True,
        )


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
