"""The only name server that a jail has: it records every name asked for and refuses it (ATTACKS: DNS tunnelling).

Serves the UDP socket that PID 1 bound inside and passed out. What comes in is written by the agent: parsed within
limits (RFC 1035), never resolved. Knows nothing of what a denial leads to.
"""

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

MESSAGE_BYTES_MAX = 512  # RFC 1035, 4.2.1: UDP without extensions
LABEL_BYTES_MAX, NAME_BYTES_MAX = 63, 255  # RFC 1035, 2.3.4
HEADER_BYTES = 12
RESPONSE, RECURSION_DESIRED, REFUSED = 0x8000, 0x0100, 5
OPCODE_MASK = 0x7800
# beyond so many different names a run is tunnelling, which the first thousand show well enough
NAMES_MAX = 1000
PRINTABLE = (0x21, 0x7E)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: a name in lower case, odd bytes as a backslash and three digits, and the type's number."""

    name: str
    kind: int


class MalformedQueryError(ValueError):
    """The message is no single ordinary question."""


def parse(message: bytes) -> tuple[Question, int]:
    """The question and the offset behind it; MalformedQueryError otherwise."""
    if not HEADER_BYTES <= len(message) <= MESSAGE_BYTES_MAX:
        raise MalformedQueryError("length")
    _, flags, questions = struct.unpack_from(">HHH", message)
    if flags & (RESPONSE | OPCODE_MASK) or questions != 1:
        raise MalformedQueryError("not one standard question")
    labels, offset = [], HEADER_BYTES
    while True:
        if offset >= len(message):
            raise MalformedQueryError("the name has no end")
        length = message[offset]
        offset += 1
        if length == 0:
            break
        # two high bits would be a compression pointer, which a question has no use for
        end = offset + length
        if length > LABEL_BYTES_MAX or end > len(message) or end - HEADER_BYTES > NAME_BYTES_MAX:
            raise MalformedQueryError("label")
        labels.append(_readable(message[offset : offset + length]))
        offset += length
    if offset + 4 > len(message):
        raise MalformedQueryError("no type")
    (kind,) = struct.unpack_from(">H", message, offset)
    return Question(".".join(labels) or ".", kind), offset + 4


def _readable(label: bytes) -> str:
    """RFC 4343, 2.1: anything but plain characters as a backslash and three digits."""
    out = []
    for byte in label:
        plain = PRINTABLE[0] <= byte <= PRINTABLE[1] and byte not in b"\\."
        out.append(chr(byte).lower() if plain else f"\\{byte:03d}")
    return "".join(out)


def refusal(message: bytes, end: int) -> bytes:
    """The answer REFUSED to a query whose question ends at `end`."""
    identifier, flags = struct.unpack_from(">HH", message)
    head = struct.pack(">HHHHHH", identifier, RESPONSE | (flags & RECURSION_DESIRED) | REFUSED, 1, 0, 0, 0)
    return head + message[HEADER_BYTES:end]


class Resolver:
    """Answers on one socket in a thread of its own until closed.

    `asked` is called from that thread with each different question, at most NAMES_MAX times. `malformed` counts those
    messages that were no question; `queries` counts all.
    """

    def __init__(self, listener: socket.socket, asked: Callable[[Question], None]) -> None:
        """Take a copy of the socket and begin."""
        self._socket = listener.dup()
        self._socket.setblocking(False)
        self._asked = asked
        self._known: set[Question] = set()
        self.queries = self.malformed = 0
        self._stop_reading, self._stop_writing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="inbounds-resolver", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._stop_reading, select.POLLIN)
        while True:
            ready = {fd for fd, _ in waiting.poll()}
            self._answer_waiting()
            if self._stop_reading in ready:
                return

    def _answer_waiting(self) -> None:
        # as many as one jail's socket buffer can hold, so that a flood cannot keep the stop from being seen
        for _ in range(1000):
            try:
                message, asker = self._socket.recvfrom(MESSAGE_BYTES_MAX + 1)
            except (BlockingIOError, ConnectionError):
                return
            self.queries += 1
            try:
                question, end = parse(message)
            except MalformedQueryError:
                self.malformed += 1
                continue
            if question not in self._known and len(self._known) < NAMES_MAX:
                self._known.add(question)
                self._asked(question)
            try:
                self._socket.sendto(refusal(message, end), asker)
            except OSError:
                continue  # the asker does not read, or is gone: its loss

    def close(self) -> None:
        """Answer what has arrived, then stop."""
        if self._stop_writing == -1:
            return
        os.write(self._stop_writing, b".")
        self._thread.join()
        self._socket.close()
        os.close(self._stop_reading)
        os.close(self._stop_writing)
        self._stop_writing = -1
