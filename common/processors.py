"""How many processors this process may use, on every system."""

import os


def usable_processors() -> int:
    """Return how many processors this process may use.

    A container or `taskset` may leave it fewer than there are. Linux alone can tell: macOS ties
    no process to processors.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
