"""Measure `make serve` with a client that sends real requests to the real server.

    python -m bench.server

The other side is what is usually written: FastAPI with `keras.Model.predict` in its handler. The
tables are written into docs/serve.md. It takes ten minutes, most of them for the soak: as many
requests as an hour holds at 100 a second, a hundredth of them bad.
"""

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.commands import ENVIRONMENT, ROOT
from bench.memory import kilobytes, process_tree
from bench.pages import measured_text, table, write_measured
from common.console import InputError, progress, run
from common.datasets import open_dataset
from common.decoding import decode
from inference.exported import ExportedModel

PAGE = ROOT / "docs" / "serve.md"
COMMAND = "python -m bench.server"
CONNECTIONS = 32
IMAGES = 1000  # different ones that the client sends in turn
REQUESTS = 20_000
REQUESTS_TO_KERAS = 1000
REQUESTS_OF_SOAK = 360_000
BAD_EVERY = 100  # requests of the soak
TOLERANCE = 1e-5  # of a probability: batches of another size round otherwise
START_SECONDS = 60

BAD = {  # a request that must be refused, by the status that refuses it
    b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
    b"content-length: 7\r\n\r\nnothing": range(400, 500),
    b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
    b"content-length: 0\r\n\r\n": range(400, 500),
    b"GET /no/such/page HTTP/1.1\r\nhost: localhost\r\n\r\n": range(404, 405),
    b"DELETE /predict HTTP/1.1\r\nhost: localhost\r\n\r\n": range(405, 406),
}


@dataclass
class Answers:
    """What a client got.

    Attributes
    ----------
    milliseconds : list of float
        How long each good request took, from sending to the whole answer.
    counts : Counter
        ``right`` and ``wrong`` answers to good requests; ``refused`` and ``not refused`` bad
        ones; ``lost`` requests, to which no whole answer came.
    seconds : float
        On the clock, for all.
    """

    milliseconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def percentile(self, percent: int) -> float:
        """Return a percentile of the milliseconds."""
        return statistics.quantiles(self.milliseconds, n=100)[percent - 1]

    @property
    def per_second(self) -> float:
        """Good requests a second."""
        return len(self.milliseconds) / self.seconds


def good_requests() -> list[tuple[bytes, list[float]]]:
    """Return requests of one test image each, with the probabilities that must be answered."""
    model = ExportedModel()
    dataset = open_dataset(ROOT / "data" / "mnist-jpg.zip")
    test = [index for index, name in enumerate(dataset.names) if name.startswith("test/")]
    step = len(test) // IMAGES
    requests = []
    for index in test[::step]:
        data = dataset.read(index)
        image = decode(data, model.description.image_size, model.description.color_mode)
        head = (
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        expected = model.probabilities_of(image.pixels[None])[0]
        requests.append((head.encode() + data, expected.tolist()))
    return requests


class Connection:
    """A connection to the server that is opened when it is needed, and anew once it was closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None

    async def answer_to(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(request)
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None


def is_right(status: int, body: bytes, expected: list[float]) -> bool:
    """Tell whether an answer holds the expected probabilities."""
    if status != 200:
        return False
    given = json.loads(body)["predictions"][0]["probabilities"].values()
    return all(abs(a - b) < TOLERANCE for a, b in zip(given, expected, strict=True))


async def send(port: int, requests: int, bad_every: int, answers: Answers, title: str) -> None:
    """Send requests over all connections at once, each waiting for its answer.

    Parameters
    ----------
    port : int
        Of the server, on this machine.
    requests : int
        How many.
    bad_every : int
        Every how many of them is a bad one; 0 for none.
    answers : Answers
        It grows by what comes.
    title : str
        What is going on, for the progress bar.
    """
    good = itertools.cycle(good_requests())
    bad = itertools.cycle(BAD.items())
    numbers = iter(range(1, requests + 1))
    counts = answers.counts

    async def send_in_turn() -> None:
        connection = Connection(port)
        for number in numbers:
            is_bad = bad_every and number % bad_every == 0
            request, expected = next(bad) if is_bad else next(good)
            start = time.perf_counter()
            try:
                status, body = await connection.answer_to(request)
            except (OSError, asyncio.IncompleteReadError):
                counts["lost"] += 1
                continue
            if is_bad:
                counts["refused" if status in expected else "not refused"] += 1
            else:
                answers.milliseconds.append(1000 * (time.perf_counter() - start))
                counts["right" if is_right(status, body, expected) else "wrong"] += 1
            bar.update()
        connection.close()

    with progress(title, requests, "requests") as bar:
        start = time.perf_counter()
        await asyncio.gather(*(send_in_turn() for _ in range(CONNECTIONS)))
        answers.seconds += time.perf_counter() - start


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextlib.contextmanager
def serving(*command: str) -> Iterator[tuple[int, int]]:
    """Run a server meanwhile; yield its port and the number of its process.

    Parameters
    ----------
    *command : str
        A program and its arguments; the port follows.

    Raises
    ------
    InputError
        If it does not answer within `START_SECONDS`.
    """
    port = free_port()
    server = subprocess.Popen(
        [*command, str(port)], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise InputError(f"{' '.join(command)} does not answer on port {port}")
            time.sleep(0.01)
        yield port, server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(START_SECONDS)


def measure(title: str, requests: int, *command: str) -> Answers:
    """Start a server, send it good requests, and return what came."""
    answers = Answers()
    with serving(*command) as (port, _):
        asyncio.run(send(port, requests, 0, answers, title))
    print(
        f"{title}: {answers.per_second:,.0f} requests/s, median {answers.percentile(50):.1f} ms, "
        f"99th percentile {answers.percentile(99):.1f} ms, {dict(answers.counts)}",
        flush=True,
    )
    return answers


def soak(*command: str) -> tuple[Answers, list[float]]:
    """Send a server very many requests, some of them bad.

    Returns
    -------
    (Answers, list of float)
        What came; the megabytes of the server's memory after each tenth of the requests.
    """
    answers = Answers()
    megabytes = []
    with serving(*command) as (port, process):
        for tenth in range(1, 11):
            asyncio.run(
                send(port, REQUESTS_OF_SOAK // 10, BAD_EVERY, answers, f"soak, {tenth} of 10")
            )
            processes = process_tree(process)
            kilobytes_of_all = sum(kilobytes(one, "smaps_rollup", "Pss") for one in processes)
            megabytes.append(kilobytes_of_all / 1000)
            print(f"soak: {dict(answers.counts)}, {megabytes[-1]:.1f} MB", flush=True)
    return answers, megabytes


def main() -> None:
    """Measure, print the tables, and write them into the page."""
    serve = (sys.executable, "-m", "inference.serve", "--port")
    keras = (sys.executable, "-m", "bench.inference", "keras_serve")
    ours = measure("make serve", REQUESTS, *serve)
    theirs = measure("keras.Model.predict", REQUESTS_TO_KERAS, *keras)
    soaked, megabytes = soak(*serve)
    speed = table(
        ["what", "this project", "FastAPI with `predict`", "goal", ""],
        [
            [
                f"requests/s of one image each, {CONNECTIONS} connections",
                f"{ours.per_second:,.0f}",
                f"{theirs.per_second:,.0f}",
                ">= 1,000",
                "met" if ours.per_second >= 1000 else "missed",
            ],
            ["median, ms", f"{ours.percentile(50):.1f}", f"{theirs.percentile(50):.1f}", "", ""],
            [
                "99th percentile, ms",
                f"{ours.percentile(99):.1f}",
                f"{theirs.percentile(99):.1f}",
                "<= 60",
                "met" if ours.percentile(99) <= 60 else "missed",
            ],
        ],
    )
    counts = soaked.counts
    endurance = (
        f"The soak: {REQUESTS_OF_SOAK:,} requests in {soaked.seconds / 60:.1f} minutes, every "
        f"{BAD_EVERY}th of them bad. {counts['lost']} were lost, {counts['wrong']} answered wrong, "
        f"{counts['not refused']} bad ones not refused. The server's memory was "
        f"{megabytes[0]:.0f} MB after a tenth of them, {max(megabytes):.0f} MB at most and "
        f"{megabytes[-1]:.0f} MB at the end."
    )
    text = measured_text(COMMAND, speed, endurance)
    print(text)
    write_measured(PAGE, COMMAND, text)


if __name__ == "__main__":
    run("server", main)
