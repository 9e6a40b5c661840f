"""The gateway's events on their way to the supervisor: queued, so that a slow supervisor never stalls the event loop.

Knows nothing of what the events mean.
"""

import queue
import socket
import threading
from collections.abc import Mapping
from typing import Any

from inbounds.program import channel

BACKLOG_MAX = 20_000  # events that a stalled supervisor has not taken; past it nothing is admitted any more


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
                channel.send(self._sock, event)
            except OSError:
                return  # the supervisor is gone; the control loop sees the same and ends this program
