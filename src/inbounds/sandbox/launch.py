"""The supervisor's side of the warden: start it once, ask it for bubblewraps, know whether it lives.

Knows nothing of jails beyond descriptors and arguments.
"""

import atexit
import ctypes
import json
import os
import socket
import struct
import subprocess
import threading
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.warden import MESSAGE_BYTES_MAX

ANSWER_SECONDS_MAX = 20  # a fork, on a machine that may be swapping
SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x02, 0x04
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


def open_source(path: str) -> int:
    """An O_PATH descriptor of a bind's source, refusing every symbolic link on the way (ATTACKS: leave the workspace).

    A directory that an agent has replaced by a link must not show the link's target to the next jail.
    """
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    number = _libc.syscall(ctypes.c_long(SYS_OPENAT2), AT_FDCWD, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if number == -1:
        why = os.strerror(ctypes.get_errno())
        raise HostError(
            f"{path} cannot be shown to a jail: {why}", expected="an existing path without symbolic links in it"
        )
    return int(number)


class Launcher:
    """One warden and the socket to it; thread-safe. When the socket closes, the warden leaves nothing alive."""

    def __init__(self) -> None:
        """Start the warden. It is told of this process by a pidfd, so that no other holder of a copy matters."""
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        me = os.pidfd_open(os.getpid())
        program = os.path.join(os.path.dirname(__file__), "warden.py")
        argv = [jail_python(), "-I", "-S", program, "--control-fd", str(theirs.fileno()), "--supervisor-fd", str(me)]
        self._process = subprocess.Popen(
            argv,
            pass_fds=(theirs.fileno(), me),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,  # Ctrl-C is for the supervisor, which then ends its jails in order
        )
        theirs.close()
        os.close(me)
        ours.settimeout(ANSWER_SECONDS_MAX)
        self._socket = ours
        self.pid = self._process.pid

    def alive(self) -> bool:
        """Whether the warden still runs."""
        return self._process.poll() is None

    def launch(
        self, argv: tuple[str, ...], inherit: list[int], sources: list[int], uid: int, gid: int, group: int = -1
    ) -> tuple[int, int]:
        """Have bubblewrap started with `inherit` as its descriptors 0, 1, 2, …; its pid and a pidfd, to be closed.

        `group` is a control group's directory to start it in, which is not done where the kernel is too old.
        """
        grouped = group != -1
        request = {"argv": argv, "inherit": len(inherit), "uid": uid, "gid": gid, "group": grouped}
        answer, descriptors = self._ask(request, [*inherit, *sources, *([group] if grouped else [])], 1)
        return int(answer["pid"]), descriptors[0]

    def clone(self, wanted: list[tuple[str, bool]], sources: list[int]) -> list[int]:
        """Sources as trees of mounts that a waiting jail can attach: (path, writable) each; HostError where not."""
        return self._ask({"clone": wanted}, sources, len(wanted))[1] if wanted else []

    def _ask(self, request: dict[str, Any], descriptors: list[int], expected: int) -> tuple[dict[str, Any], list[int]]:
        message = json.dumps(request).encode()
        if len(message) > MESSAGE_BYTES_MAX:
            raise HostError(f"a jail's arguments take {len(message)} bytes", expected=f"at most {MESSAGE_BYTES_MAX}")
        with self._lock:
            try:
                socket.send_fds(self._socket, [message], descriptors)
                answer, received, _, _ = socket.recv_fds(self._socket, 4096, max(1, expected))
            except OSError as error:
                # a late answer would be taken for the next request's: this warden, and what it holds, must end
                self._process.kill()
                raise HostError(f"the warden does not answer: {error}", expected="one running warden") from error
        if not answer:
            raise HostError("the warden ended", expected="one running warden")
        said: dict[str, Any] = json.loads(answer)
        if "error" in said or len(received) != expected:
            for fd in received:
                os.close(fd)
            raise HostError(said.get("error", f"{len(received)} descriptors instead of {expected}"))
        return said, received

    def close(self) -> None:
        """End the warden, and with it whatever still runs; returns when it is gone."""
        self._socket.close()
        self._process.wait()


_launcher: Launcher | None = None
_launcher_pid = 0
_starting = threading.Lock()


def launcher() -> Launcher:
    """This process's warden, started at first use and again if it was lost (a fork has to have its own)."""
    global _launcher, _launcher_pid  # one warden per process is the point
    with _starting:
        if _launcher is None or _launcher_pid != os.getpid() or not _launcher.alive():
            if _launcher is None or _launcher_pid != os.getpid():
                atexit.register(_close)
            _launcher, _launcher_pid = Launcher(), os.getpid()
        return _launcher


def _close() -> None:
    if _launcher is not None and _launcher_pid == os.getpid():
        _launcher.close()
