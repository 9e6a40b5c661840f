"""Datagrams between supervisor and gateway: one JSON object each over SOCK_SEQPACKET, descriptors beside it.

Used at both ends. Knows nothing of what the objects mean.
"""

import array
import json
import queue
import socket
import threading
from collections.abc import Mapping
from typing import Any

DATAGRAM_BYTES_MAX = 64 << 10
DESCRIPTORS_MAX = 4
BACKLOG_MAX = 20_000  # events that a stalled supervisor has not taken; past it nothing is admitted any more


def send(sock: socket.socket, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one object; ValueError where it is too long for a datagram."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > DATAGRAM_BYTES_MAX:
        raise ValueError(f"a control message of {len(data)} bytes")
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sock.sendmsg([data], rights)
    else:
        sock.send(data)


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


class Emitter:
    """Sends events on a thread of its own, in order, so that a slow supervisor never stalls the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        """Take the control socket; `start` after the seal."""
        self._sock = sock
        self._events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def emit(self, event: Mapping[str, Any]) -> None:
        """Queue one event."""
        self._events.put(event)

    @property
    def stalled(self) -> bool:
        """Whether the supervisor has stopped reading: then nothing more may be spent unseen."""
        return self._events.qsize() > BACKLOG_MAX

    def stop(self) -> None:
        """Send what is queued, and end."""
        self._events.put(None)
        self._thread.join(timeout=5)  # a supervisor that is gone will not take the rest

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                send(self._sock, event)
            except OSError:
                return  # the supervisor is gone; the control loop sees the same and ends this program
