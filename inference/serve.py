"""Answer with the exported model over HTTP, and show a page to try it: `make serve`.

python -m inference.serve [--port PORT] [--host HOST]

Only this machine reaches it, unless another address than 127.0.0.1 is given.
"""

import argparse
import ipaddress
import re
import socket

import uvicorn

from common.console import InputError, run
from inference.api import application
from inference.connections import LimitedProtocol
from inference.exported import open_current

PORT, HOST = "8000", "127.0.0.1"
KEEP_ALIVE_SECONDS = 30  # how long a connection may be idle
SHUTDOWN_SECONDS = 5  # for the requests that are under way at Ctrl-C


def listening(host: str, port: str) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises
    ------
    InputError
        If it is no address of this machine, is taken, or only root may have it.
    """
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise InputError(f"PORT is {port!r}; it must be a whole number, 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            re.sub(r"^\[(.*)\]$", r"\1", host),
            int(port),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # else a second one that binds would be told only later
    except (OSError, ValueError) as error:
        # A ValueError is Python's of what can be no name, such as one with 64 letters before a dot.
        reason = error.strerror if isinstance(error, OSError) else "that is no name of a machine"
        raise InputError(f"cannot listen on {host!r}, port {port}: {reason}") from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether only this machine reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """Return the address to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__.splitlines()[0])
    parser.add_argument("--port", default=PORT, help=f"default: {PORT}; 0 takes a free one")
    parser.add_argument("--host", default=HOST, help=f"default: {HOST}, which is this machine")
    arguments = parser.parse_args()
    listener = listening(arguments.host, arguments.port)
    hosts = None
    if is_loopback(listener):
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", arguments.host})
    else:
        print(f"serve: warning: whoever reaches this machine at {arguments.host} may use the model")
    app = application(open_current(), hosts)
    print(f"serve: {address_of(listener)}  (end it with Ctrl-C)", flush=True)
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    run("serve", main)
