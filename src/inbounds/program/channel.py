"""The control channel between the supervisor and a program of ours: one JSON object a datagram, descriptors beside it.

An AF_UNIX SOCK_SEQPACKET pair that the supervisor makes; end of file means that the other side is dead. Used at both
ends; knows nothing of what the objects mean.
"""

import array
import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# One datagram; sockets take about 200 KiB by default, and no message of ours needs more than this.
DATAGRAM_BYTES_MAX = 64 << 10
# A listener or a file of keys travels alone.
DESCRIPTORS_MAX = 4


class ChannelError(Exception):
    """The other side sent what is no message of this channel."""


@dataclass(frozen=True, slots=True)
class Message:
    """One datagram; `descriptors` are open (close-on-exec) and belong to the receiver."""

    body: dict[str, Any]
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors of a message that nobody wants."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def encode(body: Mapping[str, Any]) -> bytes:
    """Write a message; ValueError if it does not fit a datagram."""
    raw = json.dumps(body, separators=(",", ":")).encode()
    if len(raw) > DATAGRAM_BYTES_MAX:
        raise ValueError(f"{len(raw)} bytes do not fit a datagram of {DATAGRAM_BYTES_MAX}")
    return raw


def shortened(body: dict[str, Any], key: str) -> dict[str, Any]:
    """Cut the text at `key` in the middle until the message fits; both ends of a test's output say the most."""
    text = str(body[key])
    keep = len(text)
    cut = body
    while keep and len(json.dumps(cut, separators=(",", ":")).encode()) > DATAGRAM_BYTES_MAX:
        keep = keep * 3 // 4
        half = keep // 2
        cut = body | {key: f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[len(text) - half :]}"}
    return cut


def send(sock: socket.socket, body: Mapping[str, Any], *descriptors: int) -> None:
    """Send one message; ValueError if it is too long, BlockingIOError or OSError if the other side is full or gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([encode(body)], rights)


def receive(sock: socket.socket) -> Message | None:
    """Receive one message, None at end of file; ChannelError for anything that is none, OSError as recvmsg has it."""
    space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    raw, ancillary, flags, _ = sock.recvmsg(DATAGRAM_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    try:
        body = _parse(raw, flags)
    except ChannelError:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        raise
    return None if body is None else Message(body, tuple(descriptors))


def _parse(raw: bytes, flags: int) -> dict[str, Any] | None:
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ChannelError("a message longer than the channel allows")
    if not raw:
        return None
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as fault:
        raise ChannelError(f"a message that is no JSON: {fault}") from None
    if not isinstance(body, dict):
        raise ChannelError("a message that is no object")
    return body
