"""The supervisor's side of a small program of ours: start it with its channel, hear it, notice its end, end it.

Nothing secret stands in argv or environment: both are empty but for a descriptor's number. Imports nothing of the
program itself, and knows nothing of what is said.
"""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, Self

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.program import channel

START_SECONDS = 60  # a cold disk and a busy machine; it takes under one
END_SECONDS = 15  # after the end of its channel a program has nothing left to do

Event = dict[str, Any]


class Child:
    """One running program; make it with `start`. Sending is thread-safe."""

    def __init__(self, process: "subprocess.Popen[bytes]", sock: socket.socket, name: str) -> None:
        """Take over a process and this end of its channel; `name` is what a person calls it."""
        self.process = process
        self.stopping = False
        self._sock, self._name = sock, name
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", END_SECONDS, 0))
        self._sending = threading.Lock()
        self._reader: threading.Thread | None = None

    @classmethod
    def start(cls, module: str, name: str, *, stderr: IO[bytes] | int | None = None) -> Self:
        """Start `python -m MODULE` in a session of its own; `stderr` as subprocess has it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                command(module, theirs.fileno()),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                start_new_session=True,
            )
        return cls(process, ours, name)

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self.process.pid

    def send(self, body: Mapping[str, Any], *descriptors: int) -> None:
        """Say something to it; HostError where it is gone or stuck, or where the message is too long."""
        try:
            with self._sending:
                channel.send(self._sock, body, *descriptors)
        except (OSError, ValueError) as error:
            raise HostError(f"the {self._name} can't be told: {error}", expected="it to run and to listen") from None

    def expect(self, kind: str) -> Event:
        """Its next event, which must be this one; before `listen`. Else it is ended, and what it said is raised.

        A program says {"event": "failed", "exit": ..., "found": ..., ...} for an OperatorError or HostError of its own.
        """
        try:
            self._sock.settimeout(START_SECONDS)
            message = channel.receive(self._sock)
            self._sock.settimeout(None)
        except (OSError, channel.ChannelError) as error:
            self.stop(seconds=0)  # whatever it is doing, nobody knows of it
            raise HostError(f"the {self._name} did not start: {error}") from None
        event = message.body if message else {}
        if event.get("event") != kind:
            self.stop()
            raise self._failure(event)
        return event

    def listen(self, hear: Callable[[Event], None], ended: Callable[[], None]) -> None:
        """Hear each event from now on, in order, on a thread of this object; `ended` is last, the process being gone.

        It also comes where `hear` fails, as then nobody would hear the program any more.
        """
        self._reader = threading.Thread(target=self._read, args=(hear, ended), name=self._name, daemon=True)
        self._reader.start()

    def stop(self, farewell: Mapping[str, Any] | None = None, seconds: float = END_SECONDS) -> int:
        """End it: `farewell` or, without one, the end of its channel; killed where it won't go. Its exit code.

        Idempotent. When this returns, every event was heard.
        """
        self.stopping = True
        with contextlib.suppress(HostError, OSError):  # it may be gone already
            if farewell is None:
                self._sock.shutdown(socket.SHUT_RDWR)
            else:
                self.send(farewell)
        code = self._end(seconds)
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(seconds)
        self._sock.close()
        return code

    def _end(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _read(self, hear: Callable[[Event], None], ended: Callable[[], None]) -> None:
        try:
            while (message := self._next()) is not None:
                message.close()
                hear(message.body)
        finally:
            with contextlib.suppress(OSError):  # closed on its side already, where it ended by itself
                self._sock.shutdown(socket.SHUT_RDWR)
            self._end(END_SECONDS)  # without a channel it obeys nobody
            ended()

    def _next(self) -> channel.Message | None:
        try:
            return channel.receive(self._sock)
        except (channel.ChannelError, OSError):
            return None  # no program of ours sends that: it is as good as dead

    def _failure(self, event: Event) -> Exception:
        if event.get("event") != "failed":
            why = event.get("why") or f"it ended with {self.process.returncode}"
            return HostError(f"the {self._name} did not get ready: {why}")
        kind = OperatorError if event.get("exit") == OperatorError.exit_code else HostError
        parts = {part: str(event.get(part, "")) for part in ("expected", "fix", "where")}
        return kind(str(event.get("found", "")), **parts)


def command(module: str, control_fd: int) -> list[str]:
    """How a program is started: isolated, so that no variable or directory of the operator's changes it."""
    return [sys.executable, "-I", "-m", module, "--control-fd", str(control_fd)]
