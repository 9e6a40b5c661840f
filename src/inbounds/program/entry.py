"""How a small program of ours begins: bounded before it hears its first secret, and with one descriptor to talk over.

Knows nothing of what the program is for.
"""

import os
import socket
import sys
from collections.abc import Callable

from inbounds.contracts.errors import EXIT_OPERATOR
from inbounds.program import channel, seal

FLAG = "--control-fd"
CONFIGURE_SECONDS = 30  # for the supervisor to say what a program is for

# Serves until the supervisor is gone; is given what `seal.begin` found and returns the exit status.
Serve = Callable[[socket.socket, dict[str, str]], int]


def main(module: str, serve: Serve) -> int:
    """`python -I -m MODULE --control-fd N`: nothing but the number of a descriptor stands in argv."""
    if len(sys.argv) != 3 or sys.argv[1] != FLAG or not sys.argv[2].isdecimal():  # noqa: PLR2004 - flag and value
        sys.stderr.write(f"usage: python -m {module} {FLAG} N (started by the supervisor)\n")
        return EXIT_OPERATOR
    return begin(int(sys.argv[2]), serve)


def begin(control_fd: int, serve: Serve) -> int:
    """Bound this process, then serve over an inherited AF_UNIX SOCK_SEQPACKET descriptor."""
    os.umask(0o077)
    begun = seal.begin(control_fd)
    with socket.socket(fileno=control_fd) as control:
        return serve(control, begun)


def first_message(control: socket.socket) -> channel.Message | None:
    """What the supervisor says this program is for; None where it says nothing, or nothing that can be understood."""
    control.settimeout(CONFIGURE_SECONDS)
    try:
        return channel.receive(control)
    except (OSError, channel.ChannelError):
        return None
    finally:
        control.settimeout(None)
