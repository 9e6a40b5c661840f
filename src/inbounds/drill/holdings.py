"""What an operator holds in the kernel rather than in files: shared memory, queues, keys, a terminal, an environment.

Made for one arena with the case's secret in them and removed with it. Knows nothing of cases.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path

# linux/ipc.h, linux/shm.h, linux/msg.h, linux/keyctl.h
IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
EVERYBODY = 0o666
PAGE = 4096
USER_KEYRING = -4
KEYCTL_SETPERM, KEYCTL_INVALIDATE = 5, 21
KEY_PERMISSIONS = 0x3F3F0000  # possessor and user: everything
SYS_ADD_KEY, SYS_KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (-1, -1))
READ_BYTES_MAX = 1 << 16
BOOK = "held"

NEEDS = ("shared-memory", "queue", "key", "terminal", "environment")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p
_long = ctypes.c_long


class Holdings:
    """Whatever of NEEDS is asked for. `offers` is what HOST says of it; `environment` what a control starts with.

    What this host cannot have is not offered: the case that asks for it fails outside as well, and has NO CONTROL.
    """

    def __init__(self, needs: tuple[str, ...], directory: Path, token: str, secret: str) -> None:
        """Make it all. What would outlive this process is written down in `directory`, for the sweeper."""
        self.offers: dict[str, object] = {}
        self.environment: dict[str, str] = {}
        self._token, self._secret = token, secret
        self._book = directory / BOOK
        self._terminals: tuple[int, ...] = ()
        self._received = 0
        makers = (self._shared_memory, self._queue, self._key, self._terminal, self._environment)
        for name, make in zip(NEEDS, makers, strict=True):
            if name in needs:
                with contextlib.suppress(OSError):
                    make()

    def _written_down(self, kind: str, number: int) -> int:
        with open(self._book, "a") as book:
            book.write(f"{kind} {number}\n")
        return number

    def _shared_memory(self) -> None:
        """A System V segment, and a file where shm_open puts them."""
        key = int(self._token[:7], 16) | 1  # never IPC_PRIVATE
        segment = _checked("shmget", _libc.shmget(key, PAGE, IPC_CREAT | IPC_EXCL | EVERYBODY))
        self._written_down("segment", segment)
        address = _libc.shmat(segment, None, 0)
        ctypes.memmove(address, self._secret.encode(), len(self._secret))
        _libc.shmdt(ctypes.c_void_p(address))
        number = self._written_down("file", int(self._token, 16))
        with open(_shared_file(number), "x") as file:
            os.fchmod(file.fileno(), EVERYBODY)
            file.write(self._secret)
        self.offers |= {"shared_memory": key, "shared_memory_file": file.name}

    def _queue(self) -> None:
        """A System V queue with one message in it."""
        key = int(self._token[:7], 16) | 1
        queue = _checked("msgget", _libc.msgget(key, IPC_CREAT | IPC_EXCL | EVERYBODY))
        self._written_down("queue", queue)
        message = (1).to_bytes(8, "little") + self._secret.encode()
        _checked("msgsnd", _libc.msgsnd(queue, message, len(self._secret), 0))
        self.offers["queue"] = key

    def _key(self) -> None:
        """A key in the operator's keyring, which each of his processes may read."""
        name, secret = f"inbounds-drill-{self._token}".encode(), self._secret.encode()
        made = _libc.syscall(_long(SYS_ADD_KEY), b"user", name, secret, _long(len(secret)), _long(USER_KEYRING))
        key = self._written_down("key", _checked("add_key", int(made)))
        _checked("keyctl", _keyctl(KEYCTL_SETPERM, key, KEY_PERMISSIONS))
        self.offers["key"] = key

    def _terminal(self) -> None:
        """A terminal of the operator's that somebody sits at."""
        self._terminals = os.openpty()
        os.set_blocking(self._terminals[0], False)
        self.offers["terminal"] = os.ttyname(self._terminals[1])

    def _environment(self) -> None:
        """A variable of the drill's own environment and of the control's, as an operator exports his tokens."""
        name = f"INBOUNDS_DRILL_{self._token}"
        os.environ[name] = self.environment[name] = self._secret

    @property
    def received(self) -> int:
        """Bytes that were written to the terminal until now."""
        for master in self._terminals[:1]:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(master, READ_BYTES_MAX):
                    self._received += len(part)
        return self._received

    def close(self) -> None:
        """Remove it."""
        for name in self.environment:
            os.environ.pop(name, None)
        for terminal in self._terminals:
            os.close(terminal)
        self._terminals = ()
        release(self._book)


def release(book: Path) -> None:
    """Remove from the kernel what a book names; what is gone already is no matter."""
    try:
        lines = book.read_text().splitlines()
    except FileNotFoundError:
        return
    for kind, number in (line.split() for line in lines):
        RELEASES[kind](int(number))
    book.unlink()


def _shared_file(number: int) -> str:
    return f"/dev/shm/inbounds-{number:x}"  # noqa: S108 - the very place


def _unlink(number: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_shared_file(number))


def _keyctl(operation: int, *arguments: int) -> int:
    return int(_libc.syscall(_long(SYS_KEYCTL), _long(operation), *map(_long, arguments)))


RELEASES: dict[str, Callable[[int], object]] = {
    "segment": lambda number: _libc.shmctl(number, IPC_RMID, None),
    "queue": lambda number: _libc.msgctl(number, IPC_RMID, None),
    "key": lambda number: _keyctl(KEYCTL_INVALIDATE, number),
    "file": _unlink,
}


def _checked(what: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
