"""TensorFlow and Keras, imported fast and quietly: the one place that imports them.

Fast: importing makes a million objects that stay. Python's garbage collector is kept from
looking through them, then and at the end of the process [1]_, which saves two fifths of the
time. Keras tries to import OpenCV, pandas, scikit-learn and matplotlib for helpers that no
stage uses, and does without where they are absent: they are hidden from it while it is
imported, which saves another third.

Quiet: TensorFlow greets its user with lines about oneDNN, CUDA and the processor, and LiteRT's
converter and interpreter with what they always ignore. The ones listed here are kept from the user;
whatever else comes while they start is passed on. Where a GPU is to be expected and none was found,
`train` says so, with TensorFlow's reason (`common.devices`).

The same for everybody: Keras finds no keras.json of the user's [2]_.

References
----------
.. [1] https://docs.python.org/3/library/gc.html#gc.freeze
.. [2] https://keras.io/api/utils/config_utils/
"""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator

from common.processors import usable_processors

UNUSED = ("cv2", "matplotlib", "pandas", "sklearn")
GREETINGS = (
    "before absl::InitializeLog() is called",
    "oneDNN custom operations are on",
    "Could not find cuda drivers",
    "optimized to use available CPU instructions",
    "To enable the following instructions",
    "failed call to cuInit",
    "Ignored output_format",
    "Ignored drop_control_dependency",
    "fully_quantize: 0, inference_type",
    "Skipping runtime version metadata",
    "Created TensorFlow Lite XNNPACK delegate",
)

unsaid: list[str] = []  # the greetings that came


@contextlib.contextmanager
def hidden(modules: tuple[str, ...]) -> Iterator[None]:
    """Make modules look absent to whoever tries to import them meanwhile."""
    imported = {name: sys.modules[name] for name in modules if name in sys.modules}
    # https://docs.python.org/3/reference/import.html#the-module-cache
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type]  # None is documented there
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(imported)


@contextlib.contextmanager
def without_greetings() -> Iterator[None]:
    """Keep the greetings from stderr, also the native code's; pass on the rest."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if any(greeting in line for greeting in GREETINGS):
                    unsaid.append(line)
                else:
                    print(line, file=sys.stderr)


os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = os.devnull  # no folder: Keras finds no keras.json there, and writes none
# Otherwise one training takes all memory of a GPU, and another finds none:
# https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# Warnings and errors; of several machines, where a lost one is a page of errors, none: `train`
# says it in a line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "1")
gc.disable()
with hidden(UNUSED), without_greetings():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()  # looks for a GPU: the last of the greetings
gc.freeze()
gc.enable()


def use_threads(threads: int | None) -> int:
    """Set among how many threads TensorFlow shares an operation; return their number.

    It must be called before TensorFlow computes anything. The number decides how sums are split,
    and so the last bits of a result; on how many cores the threads run does not [1]_.

    Parameters
    ----------
    threads : int or None
        None takes as many as the process may use cores.

    References
    ----------
    .. [1] https://www.tensorflow.org/api_docs/python/tf/config/threading
    """
    threads = threads or usable_processors()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return threads


__all__ = ["keras", "tf", "use_threads"]
