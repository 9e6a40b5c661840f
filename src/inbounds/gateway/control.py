"""The supervisor's end of a gateway: start it, hand it listeners, close its lease, hear what happens.

A gateway that dies shows as the event {"event": "gone"}; it is always the last one. Imports nothing heavy: the gateway
itself runs in its own process. Knows nothing of HTTP.
"""

import contextlib
import itertools
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway import channel
from inbounds.gateway.config import GatewayConfig

START_SECONDS = 60  # a cold disk and a busy machine; it takes under one
ANSWER_SECONDS = 15
STOP_SECONDS = 15

Event = dict[str, Any]


class GatewayProcess:
    """One running gateway. Thread-safe; `events()` or the callback sees every event once, in order."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", sock: socket.socket, on_event: Callable[[Event], None] | None
    ) -> None:
        """Use `start`."""
        self._process = process
        self._sock = sock
        self._on_event = on_event
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._waiting: list[tuple[tuple[str, Any], queue.SimpleQueue[Event]]] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._gone = threading.Event()
        self._stopping = False
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

        Nothing secret stands in argv or environment: both are empty but for a descriptor's number. `on_event` runs on a
        thread of this object; without it the events are kept for `events()`. `keys_fd` is a seekable file with
        `{"upstreams": {NAME: {"key": "..."}}}`, passed on unread; the caller closes its own. OperatorError or
        HostError as the gateway said.
        """
        message = {"op": "configure", "config": _jsonable(config)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                _command(theirs.fileno()),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                close_fds=True,
                cwd="/",
                start_new_session=True,
            )
        gateway = cls(process, ours, on_event)
        try:
            ours.settimeout(START_SECONDS)
            channel.send(ours, message, () if keys_fd is None else (keys_fd,))
            received = channel.receive(ours)
            ours.settimeout(None)
        except (OSError, ValueError) as error:
            gateway._discard()
            raise HostError(f"the gateway did not start: {error}", where="inbounds.gateway") from None
        first = received[0] if received else {}
        if first.get("event") != "ready":
            gateway._discard()
            raise _failure(first, process.returncode)
        gateway.ready = first
        threading.Thread(target=gateway._listen, name="gateway-events", daemon=True).start()
        return gateway

    @property
    def pid(self) -> int:
        """The gateway's process id."""
        return self._process.pid

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

    def status(self) -> Event:
        """The run's figures: settled, reserved, unknown, spent (micro-dollars), requests, tool_calls, turns, ..."""
        number = next(self._numbers)
        answer = self._ask({"op": "status", "id": number}, ("status", number))
        if answer["event"] == "gone":
            raise HostError("the gateway is gone", where="inbounds.gateway")
        return answer

    def events(self) -> Iterator[Event]:
        """Every event from now until the gateway is gone (that event included); for one reader, without a callback."""
        while (event := self._events.get()) is not None:
            yield event

    def stop(self) -> int:
        """End it: lease closed, ledger written, process gone. Returns its exit code; kills it where it won't end."""
        self._stopping = True
        with contextlib.suppress(OSError, HostError):
            self._send({"op": "stop"})
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._gone.wait(ANSWER_SECONDS)
        self._sock.close()
        return self._process.returncode

    def _discard(self) -> None:
        self._process.kill()
        self._process.wait()
        self._sock.close()
        self._gone.set()

    def _send(self, message: Event, descriptors: tuple[int, ...] = ()) -> None:
        try:
            with self._lock:
                channel.send(self._sock, message, descriptors)
        except OSError as error:
            if not self.gone:
                raise HostError(f"the gateway can't be reached: {error}", where="inbounds.gateway") from None

    def _ask(self, message: Event, key: tuple[str, Any], descriptors: tuple[int, ...] = ()) -> Event:
        answers: queue.SimpleQueue[Event] = queue.SimpleQueue()
        waiting = (key, answers)
        self._waiting.append(waiting)
        try:
            if self.gone:
                return {"event": "gone"}
            self._send(message, descriptors)
            return answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise HostError(f"the gateway does not answer {message['op']}", where="inbounds.gateway") from None
        finally:
            self._waiting.remove(waiting)

    def _listen(self) -> None:
        """Read events until the gateway ends; then say that it is gone."""
        while True:
            try:
                received = channel.receive(self._sock)
            except (OSError, ValueError):
                received = None
            if received is None:
                break
            self._tell(received[0])
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._gone.set()
        self._tell({"event": "gone", "exit": self._process.poll(), "expected": self._stopping})
        self._events.put(None)

    def _tell(self, event: Event) -> None:
        kind = event.get("event")
        for key, answers in list(self._waiting):
            named = {"attached": event.get("role"), "attach_refused": event.get("role"), "status": event.get("id")}
            if kind == "gone" or (key[1] == named.get(str(kind)) and _answers(key[0], str(kind))):
                answers.put(event)
        if kind == "status":
            return
        if self._on_event is not None:
            self._on_event(event)
        else:
            self._events.put(event)


def _command(control_fd: int) -> list[str]:
    """How the program is started: isolated, so that no variable or directory of the operator's changes it."""
    return [sys.executable, "-I", "-m", "inbounds.gateway", "--control-fd", str(control_fd)]


def _answers(asked: str, kind: str) -> bool:
    return kind == asked or (asked == "attached" and kind == "attach_refused")


def _jsonable(config: GatewayConfig) -> Any:
    import json

    return json.loads(config.dump())


def _failure(first: Event, code: int | None) -> Exception:
    if first.get("event") != "failed":
        return HostError(f"the gateway ended with {code} before it was ready", where="inbounds.gateway")
    kind = OperatorError if first.get("exit") == OperatorError.exit_code else HostError
    parts = {name: str(first.get(name, "")) for name in ("expected", "fix", "where")}
    return kind(str(first.get("found", "")), **parts)
