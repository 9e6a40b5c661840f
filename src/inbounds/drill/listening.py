"""What listens on the host for one case: TCP, UDP and unix sockets of every kind; counts what reaches them.

Each connection is answered with the case's secret, as a careless local service would. Knows nothing of who connects.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Mapping

READ_BYTES_MAX = 1 << 16
CONNECTIONS_MAX = 64  # of one case; a case makes a handful
KEPT_BYTES_MAX = 1 << 20  # of what arrived, to look for the secret in


class Listening:
    """The sockets of one arena and the thread that serves them. `offers` is what HOST says of them."""

    def __init__(self, needs: tuple[str, ...], directory: str, token: str, answer: bytes) -> None:
        """Bind what is needed: pathname sockets in `directory`, abstract names with `token` in them."""
        self.offers: dict[str, object] = {}
        self._answer = answer
        self._streams: list[socket.socket] = []
        self._datagrams: list[socket.socket] = []
        self._open: list[socket.socket] = []
        self._count = 0
        self._kept = bytearray()
        self._lock = threading.Lock()
        try:
            if "listener" in needs:
                self._internet()
            if "socket" in needs:
                self._unix(
                    {"socket": os.path.join(directory, "s"), "datagram": os.path.join(directory, "d")}, mode=0o777
                )
            if "abstract" in needs:
                self._unix({"abstract": f"\0inbounds-{token}-s", "abstract_datagram": f"\0inbounds-{token}-d"})
        except BaseException:
            self._shut()
            raise
        self._stop_reading, self._stop_writing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="inbounds-drill-listening", daemon=True)
        self._thread.start()

    def _internet(self) -> None:
        stream = socket.create_server(("127.0.0.1", 0))
        self._streams.append(stream)
        self.offers["port"] = stream.getsockname()[1]
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.append(datagram)
        datagram.bind(("127.0.0.1", 0))
        self.offers["udp_port"] = datagram.getsockname()[1]
        with contextlib.suppress(OSError):  # a host without IPv6: HOST has no port6, and such a case has no control
            stream = socket.create_server(("::1", 0), family=socket.AF_INET6)
            self._streams.append(stream)
            self.offers["port6"] = stream.getsockname()[1]

    def _unix(self, names: Mapping[str, str], mode: int = 0) -> None:
        for (key, name), kind in zip(names.items(), (socket.SOCK_STREAM, socket.SOCK_DGRAM), strict=True):
            made = socket.socket(socket.AF_UNIX, kind)
            (self._streams if kind is socket.SOCK_STREAM else self._datagrams).append(made)
            made.bind(name)
            if kind is socket.SOCK_STREAM:
                made.listen()
            if mode:
                os.chmod(name, mode)
            self.offers[key] = name

    @property
    def received(self) -> int:
        """Connections and bytes until now, what is still in the kernel's queues included."""
        self._take()
        return self._count

    @property
    def kept(self) -> bytes:
        """The beginning of what arrived."""
        return bytes(self._kept)

    def _serve(self) -> None:
        while True:
            waiting = select.poll()
            waiting.register(self._stop_reading, select.POLLIN)
            for one in [*self._streams, *self._datagrams, *self._open]:
                waiting.register(one.fileno(), select.POLLIN)
            if self._stop_reading in {fd for fd, _ in waiting.poll(50)}:
                return
            self._take()

    def _take(self) -> None:
        """Accept and read whatever is there, without waiting for more."""
        with self._lock:
            for stream in self._streams:
                while _ready(stream) and len(self._open) < CONNECTIONS_MAX:
                    connection = stream.accept()[0]
                    self._count += 1
                    self._open.append(connection)
                    with contextlib.suppress(OSError):  # who does not wait for the answer gets none
                        connection.sendall(self._answer)
            for one in [*self._open, *self._datagrams]:
                while _ready(one) and self._read(one):
                    pass

    def _read(self, one: socket.socket) -> bool:
        """Take what one socket has; whether there may be more."""
        try:
            part = one.recv(READ_BYTES_MAX)
        except OSError:
            part = b""
        self._count += len(part)
        self._kept += part[: max(0, KEPT_BYTES_MAX - len(self._kept))]
        if one in self._open and not part:
            self._open.remove(one)
            one.close()
        elif one in self._datagrams and not part:
            self._count += 1  # an empty datagram got through as well
        return bool(part)

    def close(self) -> None:
        """Stop, and close every socket."""
        os.write(self._stop_writing, b".")
        self._thread.join()
        os.close(self._stop_reading)
        os.close(self._stop_writing)
        self._shut()

    def _shut(self) -> None:
        for one in [*self._streams, *self._datagrams, *self._open]:
            one.close()


def _ready(one: socket.socket) -> bool:
    waiting = select.poll()
    waiting.register(one.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
