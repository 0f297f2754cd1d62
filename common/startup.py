"""How every program of this repository starts; each package imports this module first.

`python -m stages.train` imports the package `stages` before anything else. The imports that
follow, TensorFlow's above all, take seconds. In them Ctrl-C must not show the inside of another
library, and an import that catches `KeyboardInterrupt` must not go on.

Some libraries take settings from the environment, by which they would compute or draw otherwise, or
fail. They are taken out of it, so that a result does not depend on who made it.
"""

import contextlib
import io
import os
import signal
import sys

from common import restore

SETTINGS = (
    *("KERAS_", "TF_", "XLA_", "ONEDNN_", "DNNL_", "NVIDIA_TF32_OVERRIDE"),
    *("MPLBACKEND", "MATPLOTLIBRC", "NPY_", "OPENCV_", "PANDAS_", "SCIPY_", "SKLEARN_"),
)
HARMLESS = (  # they say where to compute and what to print
    *("TF_CONFIG", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR"),
    *("TF_CPP_MIN_LOG_LEVEL", "TF_CPP_MAX_VLOG_LEVEL"),
)


def forget_settings() -> None:
    """Take out of the environment what tells a library to compute or to draw otherwise."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        if name not in HARMLESS:
            del os.environ[name]


def open_streams() -> None:
    """Give the process a place to write to, whatever it was started with.

    Where a standard stream is closed, as by ``2>&-``, the next file that is opened would take
    its number, and native code would write its messages into that file. Where the terminal
    knows ASCII alone, a name in other letters is printed with backslashes.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = open(os.devnull, mode)  # noqa: PTH123, SIM115  takes the lowest number, its own
            os.set_inheritable(null.fileno(), True)
            setattr(sys, name, null)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def end_on_interrupt(program: str) -> None:
    """Let Ctrl-C end the process at once with a line and exit status 130.

    It leaves an ignored Ctrl-C ignored: so a shell starts what runs in the background.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    stderr = os.dup(2)  # `backend` catches what is written to 2 while it imports TensorFlow

    def end(*_: object) -> None:
        with contextlib.suppress(OSError):
            os.write(stderr, f"{program}: interrupted\n".encode())
        restore.put_back()
        os._exit(130)

    signal.signal(signal.SIGINT, end)


# https://docs.python.org/3/using/cmdline.html#cmdoption-m: while Python looks for the module of
# `python -m`, and for that imports its package. Whoever imports this later keeps their Ctrl-C.
if sys.argv[0] == "-m":
    open_streams()
    forget_settings()
    module = sys.orig_argv[-len(sys.argv)]
    end_on_interrupt(module.rpartition(".")[2])
    restore.begin_stage(module)
