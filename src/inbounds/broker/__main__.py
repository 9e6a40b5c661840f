"""`python -I -m inbounds.broker --control-fd N`: started by the supervisor, never by hand."""

import socket
import sys

from inbounds.program import entry


def _serve(control: socket.socket, begun: dict[str, str]) -> int:
    from inbounds.broker.server import serve  # the web server is imported by a process that is bounded already

    return serve(control, begun)


if __name__ == "__main__":
    sys.exit(entry.main("inbounds.broker", _serve))
