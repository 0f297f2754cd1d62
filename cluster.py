"""Train on several processes of this machine, as on so many machines: a trial.

Usage: python cluster.py WORKERS. What `train` needs is made first. The chief runs under `dvc
repro`, as on the machine where one works; the other workers are started as on the other machines.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys

from review.commands import whole_number
from stages.console import run, run_program

NEEDED = ("-m", "dvc", "repro", "load", "define")
TRAIN = ("-m", "stages.train")
REPRO = ("-m", "dvc", "repro", "--force", "--single-item", "train")


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [one.getsockname()[1] for one in sockets]


def main() -> int:
    """Run the workers; return the chief's exit status."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.splitlines()[0])
    parser.add_argument("workers", metavar="WORKERS", help="number of processes")
    number = whole_number("WORKERS", parser.parse_args().workers, 1)
    made = run_program([sys.executable, *NEEDED])
    if made.returncode:
        return made.returncode
    addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]

    def start(rank: int, words: tuple[str, ...], **options: object) -> subprocess.Popen:
        task = {"type": "worker", "index": rank}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        environment = os.environ | {"TF_CONFIG": config}
        return subprocess.Popen([sys.executable, *words], env=environment, **options)

    with contextlib.ExitStack() as processes:
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        others = [start(rank, TRAIN, **quiet) for rank in range(1, number)]
        for process in others:
            processes.callback(process.kill)
        chief = start(0, REPRO)
        processes.callback(chief.kill)
        try:
            chief.wait()
            for rank, process in enumerate(others, start=1):
                if chief.returncode:
                    process.kill()
                said, _ = process.communicate()
                print("".join(f"worker {rank}: {line}\n" for line in said.splitlines()), end="")
        except KeyboardInterrupt:
            chief.wait()  # Ctrl-C reached it too: DVC tidies up
            raise
        return chief.returncode


if __name__ == "__main__":
    run("cluster", main)
