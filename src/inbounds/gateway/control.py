"""The supervisor's end of a gateway: start it, hand it listeners, close its lease, hear what happens.

A gateway that dies shows as the event {"event": "gone"}; it is always the last one. Imports nothing heavy: the gateway
itself runs in its own process. Knows nothing of HTTP.
"""

import itertools
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway.config import GatewayConfig
from inbounds.program.child import Child, Event

ANSWER_SECONDS = 15
PACE_MS_MAX = 600_000  # as pace.INTERVAL_MS_MAX, which lives with the event loop
NOTE_CHARS_MAX = 8_192  # a signed checkpoint has a few hundred
# Answers to one question each, told apart by its number; no events.
ANSWERS = frozenset({"status", "paced", "paused", "amended", "anchored"})


class GatewayProcess:
    """One running gateway. Thread-safe; `events()` or the callback sees every event once, in order."""

    def __init__(self, child: Child, on_event: Callable[[Event], None] | None) -> None:
        """Use `start`."""
        self._child = child
        self._on_event = on_event
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._waiting: list[tuple[tuple[str, Any], queue.SimpleQueue[Event]]] = []
        self._numbers = itertools.count(1)
        self._gone = threading.Event()
        self.ready: Event = {}

    @classmethod
    def start(
        cls,
        config: GatewayConfig,
        on_event: Callable[[Event], None] | None = None,
        *,
        keys_fd: int | None = None,
    ) -> "GatewayProcess":
        """Start a gateway and wait until it is sealed and ready (`.ready["seal"]` says what holds).

        `on_event` runs on a thread of this object; without it the events are kept for `events()`. `keys_fd` is a
        seekable file with `{"upstreams": {NAME: {"key": "..."}}}`, passed on unread; the caller closes its own.
        OperatorError or HostError as the gateway said.
        """
        child = Child.start("inbounds.gateway", "gateway")
        gateway = cls(child, on_event)
        try:
            message = {"op": "configure", "config": json.loads(config.dump())}
            child.send(message, *(() if keys_fd is None else (keys_fd,)))
            gateway.ready = child.expect("ready")
        except BaseException:
            child.stop()
            raise
        child.listen(gateway._tell, gateway._ended)
        return gateway

    @property
    def pid(self) -> int:
        """The gateway's process id."""
        return self._child.pid

    @property
    def gone(self) -> bool:
        """Whether the gateway has ended."""
        return self._gone.is_set()

    def attach(self, sock: socket.socket, role: str) -> None:
        """Give it a listening TCP socket (of a jail's network namespace) to accept on as `role`; waits until it does.

        A role has one listener: an earlier one is closed. The caller may close its own copy afterwards.
        """
        answer = self._ask({"op": "attach", "role": role}, ("attached", role), (sock.fileno(),))
        if answer["event"] != "attached":
            raise HostError(f"the gateway can't accept for {role}: {answer.get('why', answer['event'])}")

    def detach(self, role: str) -> None:
        """Close the listener of a jail that has ended, so that its network namespace can go."""
        self._send({"op": "detach", "role": role})

    def begin_iteration(self, n: int) -> None:
        """Iteration `n` begins: the count of its requests (turns) starts at zero."""
        self._send({"op": "iteration", "n": n})

    def close_lease(self, why: str) -> bool:
        """Admit nothing more; cut and charge what is in flight. Idempotent; True once all is charged (or gone)."""
        if self.gone:
            return True
        try:
            return bool(self._ask({"op": "close_lease", "why": why}, ("lease_drained", None)).get("ok", True))
        except HostError:
            if self.gone:
                return True
            raise

    def pace(self, interval_ms: int) -> None:
        """From now on at least so long between the starts of two model requests (0: off); at most ten minutes.

        Requests wait in line; one too many gets 429 with Retry-After. Not durable: a new gateway has to be told again.
        """
        if not 0 <= interval_ms <= PACE_MS_MAX:
            raise OperatorError(f"a pace of {interval_ms} ms", expected=f"0 to {PACE_MS_MAX}")
        self._numbered({"op": "pace", "interval_ms": interval_ms}, "paced")

    def pause(self, why: str) -> None:
        """Admit nothing from now on: 503 with Retry-After. The lease stays open; what is in flight goes on.

        Not durable: a new gateway has to be told again.
        """
        self._numbered({"op": "pause", "why": why or "paused"}, "paused")

    def unpause(self) -> None:
        """Admit again."""
        self._numbered({"op": "pause", "why": ""}, "paused")

    def amend(self, **ceilings: int) -> Event:
        """Raise or lower ceilings of the running lease (names of ledger.AMENDABLE, as in Caps); durable at once.

        Returns {"caps": all six as they are in force now, "spent_micro_usd", "spent_tokens"}. A ceiling below what is
        spent takes nothing back: no further request is admitted. A later gateway of this run has the amended ceilings,
        whatever its configuration says. A lease that was closed stays closed. OperatorError where a value is none.
        """
        answer = self._numbered({"op": "amend", "ceilings": ceilings}, "amended")
        if not answer["ok"]:
            raise OperatorError(f"the lease can't be amended: {answer['why']}", where="inbounds.gateway")
        return {name: answer[name] for name in ("caps", "spent_micro_usd", "spent_tokens")}

    def anchor(self, *, seq: int, hash: str, size: int, root: str, note: str, at_ms: int) -> bool:  # noqa: A002 - the journal's own word
        """Keep a journal's head in the ledger; True once it is durable. One that is there already is no error.

        False where the ledger could not take it, or the gateway is gone: then there is one witness less.
        """
        if len(note) > NOTE_CHARS_MAX:
            raise OperatorError(f"a note of {len(note)} characters", expected=f"at most {NOTE_CHARS_MAX}")
        head = {"seq": seq, "hash": hash, "size": size, "root": root, "note": note, "at_ms": at_ms}
        try:
            return bool(self._numbered({"op": "anchor", "head": head}, "anchored")["ok"])
        except HostError:
            if self.gone:
                return False
            raise

    def status(self) -> Event:
        """The run's figures: settled, reserved, unknown, spent (micro-dollars), requests, tool_calls, turns, ..."""
        return self._numbered({"op": "status"}, "status")

    def events(self) -> Iterator[Event]:
        """Every event from now until the gateway is gone (that event included); for one reader, without a callback."""
        while (event := self._events.get()) is not None:
            yield event

    def stop(self) -> int:
        """End it: lease closed, ledger written, process gone. Returns its exit code; kills it where it won't end."""
        return self._child.stop({"op": "stop"})

    def _send(self, message: Event, *descriptors: int) -> None:
        try:
            self._child.send(message, *descriptors)
        except HostError:
            if not self.gone:
                raise

    def _numbered(self, message: Event, kind: str) -> Event:
        """Ask something that is answered by `kind` with the same number; HostError where the gateway is gone."""
        number = next(self._numbers)
        answer = self._ask({**message, "id": number}, (kind, number))
        if answer["event"] == "gone":
            raise HostError("the gateway is gone", where="inbounds.gateway")
        return answer

    def _ask(self, message: Event, key: tuple[str, Any], descriptors: tuple[int, ...] = ()) -> Event:
        answers: queue.SimpleQueue[Event] = queue.SimpleQueue()
        waiting = (key, answers)
        self._waiting.append(waiting)
        try:
            if self.gone:
                return {"event": "gone"}
            self._send(message, *descriptors)
            return answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise HostError(f"the gateway does not answer {message['op']}", where="inbounds.gateway") from None
        finally:
            self._waiting.remove(waiting)

    def _ended(self) -> None:
        self._gone.set()
        self._tell({"event": "gone", "exit": self._child.process.returncode, "expected": self._child.stopping})
        self._events.put(None)

    def _tell(self, event: Event) -> None:
        kind = event.get("event")
        for key, answers in list(self._waiting):
            named = {"attached": event.get("role"), "attach_refused": event.get("role")}
            named |= dict.fromkeys(ANSWERS, event.get("id"))
            if kind == "gone" or (key[1] == named.get(str(kind)) and _answers(key[0], str(kind))):
                answers.put(event)
        if kind in ANSWERS:
            return
        if self._on_event is not None:
            self._on_event(event)
        else:
            self._events.put(event)


def _answers(asked: str, kind: str) -> bool:
    return kind == asked or (asked == "attached" and kind == "attach_refused")
