"""The supervisor's end of an index proxy: start it, give it a listener, hear every request, stop it.

Imports nothing heavy: the proxy runs in its own process. Knows nothing of HTTP.
"""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from inbounds.contracts.errors import HostError
from inbounds.deps.upstream import Upstream
from inbounds.program.child import Child, Event

ATTACH_SECONDS = 60  # a busy machine; it takes a millisecond
EVENTS_MAX = 100_000  # kept for a build's record; more requests than that are refused by the proxy


class IndexProxy:
    """One running proxy, for one build; a context manager. `events` are its requests so far."""

    def __init__(self, child: Child, on_event: Callable[[Event], None] | None) -> None:
        """Use `start`."""
        self._child, self._on_event = child, on_event
        self._attached = threading.Semaphore(0)
        self._gone = threading.Event()
        self.events: list[Event] = []
        self.ready: Event = {}

    @classmethod
    def start(cls, upstream: Upstream, on_event: Callable[[Event], None] | None = None) -> "IndexProxy":
        """Start a proxy and wait until it is sealed and ready. `on_event` is called on a thread of this object.

        Credentials go over the channel. OperatorError or HostError as it said.
        """
        child = Child.start("inbounds.deps.proxy", "index proxy")
        proxy = cls(child, on_event)
        try:
            child.send({"upstream": upstream.as_json()})
            proxy.ready = child.expect("ready")
        except BaseException:
            child.stop()
            raise
        child.listen(proxy._hear, proxy._ended)
        return proxy

    @property
    def pid(self) -> int:
        """The proxy's process id."""
        return self._child.pid

    @property
    def gone(self) -> bool:
        """Whether the proxy has ended."""
        return self._gone.is_set() or self._child.process.poll() is not None

    def attach(self, sock: socket.socket) -> None:
        """Give it a listening TCP socket to accept on; waits until it does. The caller may close its own copy."""
        self._child.send({"op": "attach"}, sock.fileno())
        if not self._attached.acquire(timeout=ATTACH_SECONDS) or self.gone:
            raise HostError("the index proxy does not take a listener")

    def stop(self) -> None:
        """End it; idempotent. Returns when the process is gone and every event has been seen."""
        self._child.stop({"op": "stop"})

    def _hear(self, event: Event) -> None:
        if event.get("event") == "attached":
            self._attached.release()
        elif len(self.events) < EVENTS_MAX:
            self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _ended(self) -> None:
        self._gone.set()
        self._attached.release()  # whoever waits for an answer finds it gone

    def __enter__(self) -> Self:
        """The proxy itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
