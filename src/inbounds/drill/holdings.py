"""What an operator holds in the kernel rather than in files: shared memory, queues, keys, a terminal, an environment.

Made for one arena with the case's secret in them and removed with it. Knows nothing of cases.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable

from inbounds.contracts.errors import HostError

# linux/ipc.h, linux/shm.h, linux/msg.h, linux/keyctl.h
IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
EVERYBODY = 0o666
PAGE = 4096
KEY_SPEC_USER_KEYRING = -4
KEYCTL_SETPERM, KEYCTL_INVALIDATE = 5, 21
KEY_PERMISSIONS = 0x3F3F0000  # possessor and user: everything
SYS_ADD_KEY, SYS_KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (-1, -1))
READ_BYTES_MAX = 1 << 16

NEEDS = ("shared-memory", "queue", "key", "terminal", "environment")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p


class Holdings:
    """Whatever of NEEDS is asked for. `offers` is what HOST says of it; `environment` what a control starts with."""

    def __init__(self, needs: tuple[str, ...], token: str, secret: str) -> None:
        """Make it all; HostError, with nothing left behind, where this host cannot have it."""
        self.offers: dict[str, object] = {}
        self.environment: dict[str, str] = {}
        self._undo: list[Callable[[], object]] = []
        self._master = -1
        self._received = 0
        makers = (self._shared_memory, self._queue, self._key, self._terminal, self._environment)
        try:
            for name, make in zip(NEEDS, makers, strict=True):
                if name in needs:
                    make(token, secret)
        except OSError as error:
            self.close()
            raise HostError(
                f"an arena could not be made: {error}", expected="System V IPC and keyrings"
            ) from error

    def _shared_memory(self, token: str, secret: str) -> None:
        """A System V segment, and a file where shm_open puts them."""
        key = _key_of(token)
        number = _checked("shmget", _libc.shmget(key, PAGE, IPC_CREAT | IPC_EXCL | EVERYBODY))
        self._undo.append(lambda: _libc.shmctl(number, IPC_RMID, None))
        address = _libc.shmat(number, None, 0)
        ctypes.memmove(address, secret.encode(), len(secret))
        _libc.shmdt(ctypes.c_void_p(address))
        path = f"/dev/shm/inbounds-{token}"  # noqa: S108 - the very place
        with open(path, "x") as file:
            self._undo.append(lambda: os.unlink(path))
            os.fchmod(file.fileno(), EVERYBODY)
            file.write(secret)
        self.offers |= {"shared_memory": key, "shared_memory_file": path}

    def _queue(self, token: str, secret: str) -> None:
        """A System V queue with one message in it."""
        key = _key_of(token)
        number = _checked("msgget", _libc.msgget(key, IPC_CREAT | IPC_EXCL | EVERYBODY))
        self._undo.append(lambda: _libc.msgctl(number, IPC_RMID, None))
        message = (1).to_bytes(8, "little") + secret.encode()
        _checked("msgsnd", _libc.msgsnd(number, message, len(secret), 0))
        self.offers["queue"] = key

    def _key(self, token: str, secret: str) -> None:
        """A key in the operator's keyring, which each of his processes may read."""
        name = f"inbounds-drill-{token}".encode()
        long = ctypes.c_long
        made = _libc.syscall(
            long(SYS_ADD_KEY), b"user", name, secret.encode(), long(len(secret)), long(KEY_SPEC_USER_KEYRING)
        )
        number = _checked("add_key", int(made))
        self._undo.append(lambda: _libc.syscall(long(SYS_KEYCTL), long(KEYCTL_INVALIDATE), long(number)))
        allowed = _libc.syscall(long(SYS_KEYCTL), long(KEYCTL_SETPERM), long(number), long(KEY_PERMISSIONS))
        _checked("keyctl", int(allowed))
        self.offers["key"] = number

    def _terminal(self, _token: str, _secret: str) -> None:
        """A terminal of the operator's that somebody sits at."""
        self._master, slave = os.openpty()
        self._undo += [lambda: os.close(self._master), lambda: os.close(slave)]
        os.set_blocking(self._master, False)
        self.offers["terminal"] = os.ttyname(slave)

    def _environment(self, token: str, secret: str) -> None:
        """A variable of the drill's own environment and of the control's, as an operator exports his tokens."""
        name = f"INBOUNDS_DRILL_{token}"
        os.environ[name] = self.environment[name] = secret
        self._undo.append(lambda: os.environ.pop(name, None))

    @property
    def received(self) -> int:
        """Bytes that were written to the terminal until now."""
        if self._master != -1:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(self._master, READ_BYTES_MAX):
                    self._received += len(part)
        return self._received

    def close(self) -> None:
        """Remove it, latest first."""
        while self._undo:
            self._undo.pop()()
        self._master = -1


def _key_of(token: str) -> int:
    return int(token[:7], 16) | 1  # never IPC_PRIVATE, always a positive int


def _checked(what: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
