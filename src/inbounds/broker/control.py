"""The supervisor's handle on its broker process: configure it, give it listeners, answer its calls, stop it.

Callbacks run in the handle's own reader thread. Knows nothing of what a tool does or of who decides.
"""

import contextlib
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from inbounds.broker.tools import Tool
from inbounds.contracts.errors import HostError
from inbounds.program import channel
from inbounds.program.child import Child, Event

# A broker answers at once; a loaded machine takes a few seconds.
ANSWER_SECONDS_MAX = 30
# Between a killed process's last word and its end: its descriptors are closed first.
DEATH_SECONDS_MAX = 2
# Events that nobody has taken yet; a broker's own limits keep it far below.
EVENTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """A checked call of a declared tool, waiting for `answer(id, ...)`. The arguments are the agent's words."""

    id: int
    tool: str
    arguments: Mapping[str, Any]


class BrokerProcess:
    """One broker process; make it with `start`."""

    def __init__(self, child: Child) -> None:
        """Use `start`."""
        self.process = child.process
        self.sealed: dict[str, str] = {}
        self.events: queue.Queue[Event] = queue.Queue(EVENTS_MAX)
        self._child = child
        self._call_back: Callable[[Call], None] | None = None
        self._gone_back: Callable[[], None] | None = None
        self._refused_back: Callable[[str, str], None] | None = None
        self._early: list[Call] = []
        self._calls = threading.Lock()
        self._fault = ""
        self._signs = {name: threading.Event() for name in ("listening", "closed")}

    @classmethod
    def start(cls, token: str, tools: Sequence[Tool], *, stderr: IO[bytes] | int | None = None) -> "BrokerProcess":
        """Start a sealed broker that takes `token` and knows `tools`; HostError if it does not get that far."""
        child = Child.start("inbounds.broker", "tool broker", stderr=subprocess.DEVNULL if stderr is None else stderr)
        made = cls(child)
        listed = [{"name": t.name, "description": t.description, "schema": dict(t.schema)} for t in tools]
        try:
            made.sealed = dict(child.expect("ready")["sealed"])
            child.send({"op": "configure", "token": token, "tools": listed})
            child.expect("configured")
        except BaseException:
            child.stop()
            raise
        child.listen(made._dispatch, made._ended)
        return made

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._child.pid

    def attach(self, listener: socket.socket, role: str) -> None:
        """Have the broker accept on a listening TCP socket, and no more on the one this role had before.

        The caller may close its own descriptor afterwards.
        """
        self._signs["listening"].clear()
        self._fault = ""
        self._child.send({"op": "listen", "role": role}, listener.fileno())
        self._wait("listening")

    def detach(self, role: str) -> None:
        """Have the broker let a role's listener go, and with it the jail's network namespace."""
        self._child.send({"op": "detach", "role": role})

    def on_call(self, callback: Callable[[Call], None]) -> None:
        """Hear of each call from now on, and of those that came before."""
        with self._calls:
            self._call_back = callback
            early, self._early = self._early, []
        for call in early:
            callback(call)

    def on_refused(self, callback: Callable[[str, str], None]) -> None:
        """Hear of calls that were refused: (tool, why), both the agent's words in part. The first hundred are told."""
        self._refused_back = callback

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Hear when the broker dies without having been stopped."""
        self._gone_back = callback

    def answer(self, call: int, text: str, is_error: bool = False) -> None:
        """Answer a call; a text that does not fit one datagram loses its middle, and says so."""
        body = {"op": "result", "id": call, "text": text, "is_error": is_error}
        self._child.send(channel.shortened(body, "text"))

    def close(self) -> None:
        """Stop, step 1: when this returns, no new call starts, and those that wait were refused; a dead one is closed.

        HostError where a living one does not answer.
        """
        try:
            self._child.send({"op": "close"})
            self._wait("closed")
        except HostError:
            try:
                self.process.wait(DEATH_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                pass
            else:
                return
            raise

    def stop(self) -> None:
        """End the process; it needs no more than its channel closed."""
        self._child.stop()

    def _wait(self, sign: str) -> None:
        until = time.monotonic() + ANSWER_SECONDS_MAX
        while not self._signs[sign].wait(0.05):
            if self.process.poll() is not None or self._fault or time.monotonic() > until:
                raise HostError(
                    f"the tool broker is not {sign}: {self._fault or f'exit code {self.process.poll()}'}",
                    expected=f"it within {ANSWER_SECONDS_MAX} s",
                )

    def _ended(self) -> None:
        if not self._child.stopping and self._gone_back is not None:
            self._gone_back()

    def _dispatch(self, body: Event) -> None:
        event = body.get("event")
        if event == "call":
            call = Call(int(body["id"]), str(body["tool"]), dict(body["arguments"]))
            with self._calls:
                callback = self._call_back
                if callback is None:
                    self._early.append(call)
            if callback is not None:
                callback(call)
            return
        if event == "refused" and self._refused_back is not None:
            self._refused_back(str(body["tool"]), str(body["why"]))
        if event == "fault":
            self._fault = str(body["why"])
        with contextlib.suppress(queue.Full):  # what nobody reads may be lost: `closed` carries the counts
            self.events.put_nowait(body)
        if event in self._signs:
            self._signs[str(event)].set()
