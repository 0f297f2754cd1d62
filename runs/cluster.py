"""Train on several processes of this machine, as on so many machines: a trial.

    python -m runs.cluster WORKERS

What `train` needs is made first. Then the workers start. The first of them, the chief, runs
under `dvc repro`, as on the machine where one works; the others are started as one starts them
on the other machines.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys

from common.console import run, run_program
from runs.commands import whole_number

PREPARE = ("-m", "dvc", "repro", "load", "define")
TRAIN = ("-m", "stages.train")
TRAIN_UNDER_DVC = ("-m", "dvc", "repro", "--force", "--single-item", "train")


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that no program uses."""
    with contextlib.ExitStack() as stack:
        # All are open at once, so that the system gives a different port to each.
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [server.getsockname()[1] for server in servers]


def worker_environment(addresses: list[str], rank: int) -> dict[str, str]:
    """Return the environment of a worker, in which `TF_CONFIG` says who takes part."""
    task = {"type": "worker", "index": rank}
    config = {"cluster": {"worker": addresses}, "task": task}
    return os.environ | {"TF_CONFIG": json.dumps(config)}


def train(number: int) -> int:
    """Train on a number of workers; return the exit status of the chief.

    What the other workers print is shown when they have ended. They are ended if the chief
    fails.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]
    with contextlib.ExitStack() as processes:
        workers: dict[int, subprocess.Popen[str]] = {}
        for rank in range(1, number):
            workers[rank] = subprocess.Popen(
                [sys.executable, *TRAIN],
                env=worker_environment(addresses, rank),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            processes.callback(workers[rank].kill)
        chief = subprocess.Popen(
            [sys.executable, *TRAIN_UNDER_DVC], env=worker_environment(addresses, 0)
        )
        processes.callback(chief.kill)
        try:
            chief.wait()
            for rank, worker in workers.items():
                if chief.returncode:
                    worker.kill()
                output, _ = worker.communicate()
                for line in output.splitlines():
                    print(f"worker {rank}: {line}")
        except KeyboardInterrupt:
            chief.wait()  # Ctrl-C reached it too, and DVC tidies up before it ends
            raise
        return chief.returncode


def main() -> int:
    """Make what `train` needs, then train; return the exit status of what failed, or 0."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.splitlines()[0])
    parser.add_argument("workers", metavar="WORKERS", help="number of processes")
    number = whole_number("WORKERS", parser.parse_args().workers, 1)
    prepared = run_program([sys.executable, *PREPARE])
    if prepared.returncode:
        return prepared.returncode
    return train(number)


if __name__ == "__main__":
    run("cluster", main)
