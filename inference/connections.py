"""Limits that hold before a request is one: slow clients, endless headers, too many connections."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

MAX_CONNECTIONS = 512  # half of the files that a process may commonly open
MAX_REFUSED = 64  # connections beyond these that are heard out
MAX_HEADERS = 32 * 1024  # bytes
MAX_RECEIVED = 2**30  # bytes of a request; what is beyond the limit of uploads is thrown away
RECEIVE_SECONDS = 30.0  # from the first byte of a request to the last
ANSWER_SECONDS = 120.0  # from there until the client has taken the answer


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for ever and takes headers of any length.

    It hears clients out. Many send the whole request before they read: were the connection closed
    meanwhile, they would find it reset and the answer lost. What still comes after an answer is
    thrown away, up to `RECEIVE_SECONDS` and `MAX_RECEIVED`.
    """

    clock: asyncio.TimerHandle | None = None
    in_headers = True
    in_request = False
    received = 0  # bytes of the request
    begun = 0  # requests, in what came last
    only_listens = False  # the last answer is given; what still comes is thrown away

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self.outlet = Outlet(self)
        self.unanswered: deque[RequestResponseCycle] = deque()
        if len(self.connections) > MAX_CONNECTIONS:
            self.refuse(429, "too many connections are open; try again in a second")
        else:
            self.start_clock(RECEIVE_SECONDS, self.time_is_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.stop_clock()
        self.expect_nothing()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, or let its answer be the last; uvicorn calls it at its own end."""
        super().shutdown()
        if self.only_listens:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what came, and end the connection where that is too much."""
        before, self.begun = self.in_request, 0
        if not self.only_listens:
            self._unset_keepalive_if_required()
            try:
                self.parse(data)
            except httptools.HttpParserError:
                self.refuse(400, "this is not a request of HTTP/1.1")
        if self.begun <= (not before):  # else it is, in part, of an earlier request
            self.received += len(data)
        if self.transport.is_closing():
            return
        if self.in_headers and not self.only_listens and self.received > MAX_HEADERS:
            self.refuse(431, f"the headers have more than {MAX_HEADERS} bytes")
        elif self.received > MAX_RECEIVED:
            self.transport.abort()

    def parse(self, data: bytes) -> None:
        """Parse what came, as if no request offered to go on in another protocol.

        RFC 9110, section 7.8, lets a server ignore the offer; clients make it unasked, Java's of
        HTTP/2. httptools takes what follows for the other protocol, be it the body: it gets the
        request again without the offer.
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            if not self.is_offer():
                return
            method, version = self.parser.get_method(), self.parser.get_http_version()
            lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
            lines += [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def is_offer(self) -> bool:
        """Tell whether a request offers another protocol, which CONNECT demands."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self.in_headers, self.in_request, self.received = True, True, 0
        self.begun += 1
        self.start_clock(RECEIVE_SECONDS, self.time_is_up)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those that follow a body are left out: nothing here reads them."""
        if self.in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self.is_offer():
            return
        super().on_headers_complete()
        self.in_headers = False
        self.cycle.transport = self.outlet  # type: ignore[assignment]
        self.unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        if self.is_offer():
            return
        self.in_request = False
        self.start_clock(ANSWER_SECONDS, self.give_up)
        super().on_message_complete()
        if self.cycle.response_complete:
            self.stop_clock_if_idle()

    def on_response_complete(self) -> None:
        """Wait for the client only as long as it has not taken the whole answer."""
        self.unanswered.popleft()
        super().on_response_complete()
        self.stop_clock_if_idle()

    def stop_clock_if_idle(self) -> None:
        """Let the client be, unless it is to send more or to take an answer."""
        if not self.in_request and not self.transport.get_write_buffer_size():
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

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error, the last answer of the connection."""
        if self.transport.get_write_buffer_size():
            self.give_up()  # the client has not taken earlier answers
            return
        self.expect_nothing()
        body = json.dumps({"detail": message}).encode()
        headers = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers += "retry-after: 1\r\n"
        is_answered = self.in_request and not self.in_headers and self.cycle.response_started
        if not is_answered:
            self.transport.write(
                STATUS_LINE[status] + f"{headers}connection: close\r\n\r\n".encode() + body
            )
        self.hear_out()

    def hear_out(self) -> None:
        """End the connection once the client ends it, or has had its time."""
        self.only_listens = True
        if len(self.connections) > MAX_CONNECTIONS + MAX_REFUSED:
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.write_eof()
        self.start_clock(RECEIVE_SECONDS, self.transport.abort)


class Outlet:
    """The transport as answers have it: it does not close in the middle of a request.

    Parameters
    ----------
    protocol : LimitedProtocol
        Of the connection.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        self.protocol = protocol
        self.write = protocol.transport.write

    def is_closing(self) -> bool:
        """Tell whether nothing can be written any more."""
        return self.protocol.only_listens or self.protocol.transport.is_closing()

    def close(self) -> None:
        """End the connection, as soon as the client has been heard out."""
        if self.protocol.in_request:
            self.protocol.hear_out()
        else:
            self.protocol.transport.close()
