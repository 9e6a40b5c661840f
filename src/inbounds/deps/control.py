"""The supervisor's end of an index proxy: start it, give it a listener, hear every request, stop it.

Imports nothing heavy: the proxy runs in its own process. Knows nothing of HTTP.
"""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.deps import channel
from inbounds.deps.upstream import Upstream

START_SECONDS = 60  # a cold disk and a busy machine; it takes under one
STOP_SECONDS = 10
EVENTS_MAX = 100_000  # kept for a build's record; more requests than that are refused by the proxy

Event = dict[str, Any]


class IndexProxy:
    """One running proxy, for one build; a context manager. `events` are its requests so far."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", sock: socket.socket, on_event: Callable[[Event], None] | None
    ) -> None:
        """Use `start`."""
        self._process, self._sock, self._on_event = process, sock, on_event
        self._attached = threading.Semaphore(0)
        self._gone = threading.Event()
        self.events: list[Event] = []
        self.ready: Event = {}

    @classmethod
    def start(cls, upstream: Upstream, on_event: Callable[[Event], None] | None = None) -> "IndexProxy":
        """Start a proxy and wait until it is ready. `on_event` is called on a thread of this object.

        Credentials go over the channel: none stands in argv or environment. OperatorError or HostError as it said.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "inbounds.deps.proxy", "--control-fd", str(theirs.fileno())],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                start_new_session=True,
            )
        proxy = cls(process, ours, on_event)
        try:
            ours.settimeout(START_SECONDS)
            channel.send(ours, {"upstream": upstream.as_json()})
            received = channel.receive(ours)
            ours.settimeout(None)
        except (OSError, ValueError) as error:
            proxy.stop()
            raise HostError(f"the index proxy did not start: {error}", where="inbounds.deps.proxy") from None
        first = received[0] if received else {}
        if first.get("event") != "ready":
            proxy.stop()
            kind = OperatorError if first.get("exit") == OperatorError.exit_code else HostError
            parts = {name: str(first.get(name, "")) for name in ("expected", "fix")}
            raise kind(str(first.get("found", "the index proxy did not start")), where="inbounds.deps.proxy", **parts)
        proxy.ready = first
        threading.Thread(target=proxy._listen, name="index-proxy-events", daemon=True).start()
        return proxy

    @property
    def pid(self) -> int:
        """The proxy's process id."""
        return self._process.pid

    @property
    def gone(self) -> bool:
        """Whether the proxy has ended."""
        return self._gone.is_set() or self._process.poll() is not None

    def attach(self, sock: socket.socket) -> None:
        """Give it a listening TCP socket to accept on; waits until it does. The caller may close its own copy."""
        try:
            channel.send(self._sock, {"op": "attach"}, (sock.fileno(),))
        except OSError as error:
            raise HostError(f"the index proxy is gone: {error}") from None
        if not self._attached.acquire(timeout=START_SECONDS) or self.gone:
            raise HostError("the index proxy does not take a listener")

    def stop(self) -> None:
        """End it; idempotent. Returns when the process is gone and every event has been seen."""
        with contextlib.suppress(OSError):  # it may be gone already
            channel.send(self._sock, {"op": "stop"})
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.ready:
            self._gone.wait(STOP_SECONDS)
        self._sock.close()

    def _listen(self) -> None:
        while True:
            try:
                received = channel.receive(self._sock)
            except (OSError, ValueError):
                received = None
            if received is None:
                break
            event = received[0]
            if event.get("event") == "attached":
                self._attached.release()
            elif len(self.events) < EVENTS_MAX:
                self.events.append(event)
            if self._on_event is not None:
                self._on_event(event)
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
