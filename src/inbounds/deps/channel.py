"""Datagrams between supervisor and index proxy: one JSON object each over SOCK_SEQPACKET, descriptors beside it.

Used at both ends. Knows nothing of what the objects mean.
"""

import json
import socket
from collections.abc import Mapping
from typing import Any

DATAGRAM_BYTES_MAX = 64 << 10
DESCRIPTORS_MAX = 2


def send(sock: socket.socket, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one object; ValueError where it is too long for a datagram, OSError where nobody takes it."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > DATAGRAM_BYTES_MAX:
        raise ValueError(f"a control message of {len(data)} bytes")
    socket.send_fds(sock, [data], list(descriptors))


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next object and its descriptors (close-on-exec); None at the end. ValueError where it is no object."""
    data, descriptors, flags, _ = socket.recv_fds(sock, DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX)
    if not data:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("a control message was cut short")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a control message that is no object")  # noqa: TRY004 - callers expect one kind of bad datagram
    return message, descriptors
