"""Limits that hold before a request is one: slow clients, endless headers, too many connections."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from inference.uploads import MAX_BODY

MAX_CONNECTIONS = 512  # half of the files that a process may commonly open
MAX_HEADERS = 32 * 1024  # bytes
RECEIVE_SECONDS = 30.0  # from the first byte of a request to the last
ANSWER_SECONDS = 120.0  # from there until the client has taken the answer


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for ever and takes headers of any length."""

    clock: asyncio.TimerHandle | None = None
    in_headers = True
    received = 0  # bytes of the request
    unanswered: tuple[RequestResponseCycle, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self.refuse(429, "too many connections are open; try again in a second")
        else:
            self.start_clock(RECEIVE_SECONDS, self.time_is_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.stop_clock()
        self.expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and end the connection where that is too much."""
        super().data_received(data)
        self.received += len(data)
        if self.transport.is_closing():
            return
        if self.in_headers and self.received > MAX_HEADERS:
            self.refuse(431, f"the headers have more than {MAX_HEADERS} bytes")
        elif self.received > 2 * MAX_BODY:  # it was answered, and goes on all the same
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self.in_headers, self.received = True, 0
        self.start_clock(RECEIVE_SECONDS, self.time_is_up)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those that follow a body are left out: nothing here reads them."""
        if self.in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self.in_headers = False
        super().on_headers_complete()
        self.unanswered = (*(c for c in self.unanswered if not c.response_complete), self.cycle)

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        self.start_clock(ANSWER_SECONDS, self.give_up)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the client only as long as it has not taken the whole answer."""
        super().on_response_complete()
        if not self.transport.get_write_buffer_size():
            self.stop_clock()

    def start_clock(self, seconds: float, at_its_end: Callable[[], None]) -> None:
        """Give the client its time."""
        self.stop_clock()
        self.clock = self.loop.call_later(seconds, at_its_end)

    def stop_clock(self) -> None:
        """Let the client be: nothing is waited for."""
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def time_is_up(self) -> None:
        """End the connection of a client that is too slow."""
        if self.in_headers or not self.cycle.response_started:
            self.refuse(408, f"the request did not come within {RECEIVE_SECONDS:.0f} seconds")
        else:
            self.give_up()

    def give_up(self) -> None:
        """End the connection of a client that does not take its answer."""
        self.expect_nothing()
        self.transport.abort()

    def expect_nothing(self) -> None:
        """Let the application know that nobody waits for its answer any more."""
        for cycle in self.unanswered:  # uvicorn tells the last one alone
            cycle.disconnected = True
            cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of all errors; uvicorn calls it."""
        self.refuse(400, "this is not a request of HTTP/1.1")

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error and end the connection."""
        if self.transport.get_write_buffer_size():
            self.give_up()  # the client has not taken earlier answers
            return
        self.expect_nothing()
        body = json.dumps({"detail": message}).encode()
        headers = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers += "retry-after: 1\r\n"
        self.transport.write(
            STATUS_LINE[status] + f"{headers}connection: close\r\n\r\n".encode() + body
        )
        self.transport.close()
