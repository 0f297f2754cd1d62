"""The workers of a training on several machines: who they are, and whether they agree.

The machines are named as TensorFlow names them, by `TF_CONFIG` in the environment [1]_. The
first worker is the chief: it alone reads the checkpoint and writes. Before TensorFlow connects
the workers, each says to the chief what it is about to run. TensorFlow itself would wait for
ever for one that does not come, without listening to Ctrl-C, and would train on different data
without a word.

References
----------
.. [1] https://www.tensorflow.org/guide/distributed_training#setting_up_tf_config_environment_variable
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedRWPair

from common.backend import tf
from common.console import InputError

WAIT_SECONDS = 60  # seconds that workers wait for each other to come up
LONGEST_GREETING = 1 << 20  # bytes; it has some thousand
FORM = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT", ...]}, '
    '"task": {"type": "worker", "index": 0}}, the same list for every worker and its own index'
)
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes
    ----------
    addresses : tuple of (str, int)
        Host and port of each worker; one machine alone has none.
    rank : int
        Which of them this one is; 0 is the chief.
    """

    addresses: tuple[tuple[str, int], ...] = ()
    rank: int = 0

    @property
    def workers(self) -> int:
        """Number of workers."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Return what a worker is called in messages."""
        host, port = self.addresses[rank]
        return f"worker {rank} at {host}:{port}"


def read_cluster() -> Cluster:
    """Read `TF_CONFIG`; without it, or with one worker, this machine trains alone.

    Raises
    ------
    InputError
        If it is not of the form that training on several machines needs.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return Cluster()
    try:
        config = json.loads(text)
        if list(config["cluster"]) != ["worker"] or config["task"]["type"] != "worker":
            raise ValueError("it must have workers alone")
        split = [address.rsplit(":", 1) for address in config["cluster"]["worker"]]
        addresses = tuple((host, int(port)) for host, port in split)
        rank = int(config["task"]["index"])
        if len(set(addresses)) < len(addresses):
            raise ValueError("an address stands twice")
        if not 0 <= rank < len(addresses):
            raise ValueError(f"task index {rank} of {len(addresses)} workers")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"TF_CONFIG cannot be used ({reason}); it must be {FORM}") from None
    return Cluster(addresses, rank) if len(addresses) > 1 else Cluster()


def meet(cluster: Cluster, fingerprint: dict[str, str], state: bytes) -> bytes:
    """Wait until all workers are there and about to run the same.

    Parameters
    ----------
    cluster : Cluster
        The workers.
    fingerprint : dict of str to str
        A hash of each thing that shapes the run, by its name.
    state : bytes
        The chief's checkpoint; what the others give is not looked at.

    Returns
    -------
    bytes
        The chief's checkpoint.

    Raises
    ------
    InputError
        If this worker's port is taken.
    ConnectionError
        If a worker does not come up, or is about to run something else.
    """
    if cluster.workers == 1:
        return state
    _, port = cluster.addresses[cluster.rank]
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        name = cluster.name(cluster.rank)
        raise InputError(f"{name}, which is this one, cannot use its port: {error}") from None
    with server:
        gpus = len(tf.config.list_physical_devices("GPU"))
        own_fingerprint = fingerprint | {
            "TF_CONFIG": str(cluster.addresses),
            "number of GPUs": str(gpus),
        }
        if cluster.is_chief:
            welcome(cluster, server, own_fingerprint, state)
            return state
        return greet(cluster, own_fingerprint)


def welcome(
    cluster: Cluster, server: socket.socket, own_fingerprint: dict[str, str], state: bytes
) -> None:
    """Wait for every worker's greeting; send each the state, or all of them what is wrong."""
    deadline = time.monotonic() + WAIT_SECONDS
    with contextlib.ExitStack() as connections:
        files: dict[int, BufferedRWPair] = {}
        problem = ""
        while len(files) < cluster.workers - 1 and not problem:
            try:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                connection, _ = server.accept()
                connections.enter_context(connection)
                connection.settimeout(5)
                file = connections.enter_context(connection.makefile("rwb"))
                greeting = json.loads(file.readline(LONGEST_GREETING))
                rank = range(cluster.workers).index(greeting["rank"])
                their_fingerprint = greeting["fingerprint"]
            except TimeoutError:
                missing = [cluster.name(r) for r in range(1, cluster.workers) if r not in files]
                if time.monotonic() >= deadline:
                    problem = f"{', '.join(missing)} did not come up within {WAIT_SECONDS} s"
                continue
            except (ValueError, KeyError, TypeError, OSError):
                continue  # somebody else connected to the port
            files[rank] = file
            differing = sorted(
                name
                for name in own_fingerprint.keys() | their_fingerprint
                if own_fingerprint.get(name) != their_fingerprint.get(name)
            )
            if differing:
                problem = f"{cluster.name(rank)} differs from the chief in {', '.join(differing)}"
        for file in files.values():
            with contextlib.suppress(OSError):
                file.write(json.dumps(problem).encode() + b"\n" + state)
                file.flush()
    if problem:
        raise ConnectionError(problem)


def greet(cluster: Cluster, own_fingerprint: dict[str, str]) -> bytes:
    """Greet the chief; return the state that it sends."""
    greeting = json.dumps({"rank": cluster.rank, "fingerprint": own_fingerprint}).encode() + b"\n"
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            left = deadline - time.monotonic()
            with socket.create_connection(cluster.addresses[0], left) as connection:
                # The chief may wait for others longer than this worker does.
                connection.settimeout(left + WAIT_SECONDS)
                with connection.makefile("rwb") as file:
                    file.write(greeting)
                    file.flush()
                    problem, state = json.loads(file.readline()), file.read()
        except (OSError, ValueError):
            time.sleep(0.2)
            continue
        if problem:
            raise ConnectionError(problem)
        return state
    raise ConnectionError(f"{cluster.name(0)}, the chief, did not come up within {WAIT_SECONDS} s")


@contextlib.contextmanager
def losing_none(cluster: Cluster) -> Iterator[None]:
    """Tell which worker it is if one is lost.

    Raises
    ------
    ConnectionError
        In place of TensorFlow's error.
    """
    try:
        yield
    except LOST as error:
        if cluster.workers == 1:
            raise
        tasks = re.findall(r"/job:worker/(?:replica:0/)?task:(\d+)", str(error))
        found = {int(task) for task in tasks}
        lost = [cluster.name(rank) for rank in sorted(found - {cluster.rank})]
        raise ConnectionError(
            f"{' or '.join(lost) or 'a worker'} no longer answers; start all workers again to go "
            "on from the last finished epoch"
        ) from None
