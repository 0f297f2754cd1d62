"""A real server in a process of its own, and requests to it, for tests of it and of its page."""

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import ENVIRONMENT, ROOT, hear_ctrl_c

BOUNDARY = "a-boundary"
SERVE = ("-m", "inference.serve")


class Answer(NamedTuple):
    """What the server said: the status, the headers, and the body, decoded where it is JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Server(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen
    port: int

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            return answer_of(connection)
        finally:
            connection.close()

    def predict(self, *files: tuple[str, bytes], field: str = "files") -> Answer:
        """Send files as a form."""
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.ask("POST", "/predict", form_of(files, field), headers)


def answer_of(connection: http.client.HTTPConnection) -> Answer:
    """Read an answer."""
    response = connection.getresponse()
    body: Any = response.read()
    if response.headers.get_content_type() == "application/json" and body:
        body = json.loads(body)
    return Answer(response.status, response.headers, body)


def form_of(files: tuple[tuple[str, bytes], ...], field: str = "files") -> bytes:
    """Return the body of a form with files."""
    parts = [
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def hear_ctrl_c_and_write_no_file() -> None:
    """Prepare the server's process: every byte that it would write to a file is an error."""
    hear_ctrl_c()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextmanager
def serving(folder: Path, *arguments: str, program: tuple[str, ...] = SERVE) -> Iterator[Server]:
    """Run the server meanwhile in a folder that holds a model; it must print no error."""
    process = subprocess.Popen(
        [sys.executable, *program, "--port=0", *arguments],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c_and_write_no_file,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serve: http://127.0.0.1:"), process.communicate()
        yield Server(process, int(line.split()[1].rpartition(":")[2]))
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
        assert (process.returncode, printed, errors) == (130, "", "serve: interrupted\n")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
