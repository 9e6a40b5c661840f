"""A host service that is none: the protocol at a socket of the test's own, with answers that the test chooses.

Runs what a JAIL request names as this user, without any jail, so that what a client sends can be looked at.
"""

import contextlib
import os
import socket
import threading
from pathlib import Path

from inbounds.host import protocol
from inbounds.host.protocol import Mechanism, Op, Request

EVERYTHING = Mechanism((1 << len(Mechanism)) - 1)
Answer = tuple[tuple[int, ...], list[int]]


class FakeService:
    """Listens below `directory` until `stop`; `asked` is every request, `refuse` op -> errno, `raw` op -> reply bytes."""

    def __init__(self, directory: Path, bits: Mechanism = EVERYTHING) -> None:
        self.path = str(directory / protocol.SOCKET_NAME)
        self.bits = bits
        self.asked: list[Request] = []
        self.arguments: list[list[str]] = []
        self.refuse: dict[Op, int] = {}
        self.raw: dict[Op, bytes] = {}
        self.frozen = 1
        self.survivors = 0
        self.events: int = -1
        self._connections: list[socket.socket] = []
        os.makedirs(protocol.view_of(3, str(directory)))
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(self.path)
        self._listening.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """As if it had been killed."""
        for one in (self._listening, *self._connections):
            with contextlib.suppress(OSError):  # the client was first
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(connection, protocol.MESSAGE_BYTES + 1, protocol.DESCRIPTORS_MAX)
            except OSError:
                return
            if not data:
                return
            request = protocol.unpack_request(data, len(fds))
            assert request.allowed(), request
            self.asked.append(request)
            back: list[int] = []
            if request.op in self.refuse:
                reply = protocol.pack_reply(request.op, self.refuse[request.op], request.slot)
            else:
                numbers, back = self._answer(request, fds)
                reply = protocol.pack_reply(request.op, 0, 3, *numbers)
            with contextlib.suppress(OSError):  # it did not wait for the answer
                socket.send_fds(connection, [self.raw.get(request.op, reply)], back)
            for fd in (*fds, *back):
                os.close(fd)

    def _answer(self, request: Request, fds: list[int]) -> Answer:
        match request.op:
            case Op.HELLO:
                return (protocol.VERSION, int(self.bits)), []
            case Op.OPEN | Op.ATTACH:
                return (os.getuid(), os.getgid(), int(self.bits)), [os.dup(self.events)] if self.events != -1 else []
            case Op.JAIL:
                pid = self._start(fds[0], fds[1 : 1 + request["inherited"]])
                return (pid,), [os.pidfd_open(pid)]
            case Op.FREEZE:
                return (self.frozen, 7), []
            case Op.KILL:
                return (self.survivors,), []
            case Op.DEADLINE:
                return (request["deadline_ms"],), []
            case Op.STATE:
                return (1, 2, 3, 4, int(protocol.Phase.OPEN), 6), []
            case _:
                return (), []

    def _start(self, arguments: int, inherited: list[int]) -> int:
        argv = os.pread(arguments, 1 << 20, 0).split(b"\0")
        assert argv.pop() == b""
        self.arguments.append([os.fsdecode(word) for word in argv])
        return os.posix_spawn(
            argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(inherited[:3])]
        )
