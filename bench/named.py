"""Take the measurement that the command line names.

It imports nothing that only this project's environment has: `bench.peers` runs in others, too.
"""

import argparse
import json
from collections.abc import Callable, Mapping


def print_figures(measurements: Mapping[str, Callable[..., Mapping[str, float]]]) -> None:
    """Take a measurement by its name, with the arguments that follow; print its figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", metavar="NAME", choices=measurements, help=", ".join(measurements))
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    print(json.dumps(measurements[asked.name](*asked.arguments)))
