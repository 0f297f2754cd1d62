"""How every program of this repository starts; each package imports this module first.

`python -m stages.train` imports the package `stages` before anything else. The imports that
follow, TensorFlow's above all, take seconds. In them Ctrl-C must not show the inside of another
library, and an import that catches `KeyboardInterrupt` must not go on.
"""

import contextlib
import io
import os
import signal
import sys

from common import restore


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
    end_on_interrupt(sys.orig_argv[-len(sys.argv)].rpartition(".")[2])
    restore.begin_stage()
