"""Says twice a second what granted GPUs hold and do: a program of its own, because NVML is a vendor's library.

`python -I -m inbounds.sandbox.nvml --control-fd N`, with the supervisor at the other end. It can neither crash the
supervisor nor write a file; what it says is parsed as anybody's words (sandbox/gpuwatch.py). Knows nothing of ceilings.
"""

import ctypes
import os
import resource
import select
import socket
import sys
from collections.abc import Mapping
from typing import Any

from inbounds.contracts.errors import EXIT_HOST, EXIT_KEPT, HostError
from inbounds.program import channel, entry, landlock
from inbounds.program.libc import prctl
from inbounds.program.seal import PR_SET_DUMPABLE

NAME = "inbounds.sandbox.nvml"
EVERY_MS = 500  # as often as the supervisor looks at a workspace
PROCESSES_MAX = 1_000  # on one GPU: more than any driver serves; beyond it the whole device counts
NOBODY = 65_534
MEMORY_BYTES_MAX = 1 << 30  # Python and the library take a hundredth of it
DESCRIPTORS_MAX = 256
# Landlock without the right of ioctls on devices (ABI 5), which the driver is asked by.
LANDLOCK_ABI_MAX = 4

# nvml.h: return codes; and what stands for "not available" in a process's memory
SUCCESS, NOT_FOUND, INSUFFICIENT_SIZE = 0, 6, 7
NOT_AVAILABLE = (1 << 64) - 1
FULL = 100


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Rates(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu", ctypes.c_uint),
        ("compute", ctypes.c_uint),
    )


class _OldProcess(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong))


class _Sample(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("at", ctypes.c_ulonglong), ("sm", ctypes.c_uint), ("memory", ctypes.c_uint),
                ("encoder", ctypes.c_uint), ("decoder", ctypes.c_uint))  # fmt: skip


# The kinds of a process on a GPU; each has a list, and each list has had three forms.
KINDS = ("Compute", "Graphics")
FORMS: tuple[tuple[str, type[_Process | _OldProcess]], ...] = (("_v3", _Process), ("_v2", _Process), ("", _OldProcess))


class Library:
    """NVML, loaded and begun; HostError wherever it does not do what it must."""

    def __init__(self, name: str) -> None:
        """Load it by its name, or by its path."""
        try:
            self._calls = ctypes.CDLL(name)
        except OSError as error:
            raise HostError(f"{name} cannot be loaded: {error}", fix="install the driver's package with NVML") from None
        self._must("nvmlInit_v2")

    def handles(self, minors: list[int]) -> dict[int, ctypes.c_void_p]:
        """The devices by the number in /dev/nvidiaN, which is not NVML's own index."""
        count = ctypes.c_uint()
        self._must("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found: dict[int, ctypes.c_void_p] = {}
        for index in range(count.value):
            handle, minor = ctypes.c_void_p(), ctypes.c_uint()
            self._must("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            self._must("nvmlDeviceGetMinorNumber", handle, ctypes.byref(minor))
            found[minor.value] = handle
        if missing := [str(minor) for minor in minors if minor not in found]:
            raise HostError(f"NVML does not know GPU {', '.join(missing)}", expected=f"one of {sorted(found)}")
        return {minor: found[minor] for minor in minors}

    def used(self, handle: ctypes.c_void_p) -> int:
        """Bytes in use on the whole device."""
        memory = _Memory()
        self._must("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        return int(memory.used)

    def rate(self, handle: ctypes.c_void_p) -> int | None:
        """Per cent of the last moment in which the device worked; None where it does not tell."""
        rates = _Rates()
        done = self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(rates)) == SUCCESS
        return min(FULL, int(rates.gpu)) if done else None

    def processes(self, handle: ctypes.c_void_p) -> dict[int, int | None] | None:
        """Bytes by process of this host's numbering, None where one is not told; None where there is no such list."""
        found: dict[int, int | None] = {}
        for kind in KINDS:
            listed = self._listed(kind, handle)
            if listed is None:
                return None
            for pid, used in listed:
                known = found.get(pid, 0)
                found[pid] = None if known is None or used == NOT_AVAILABLE else max(known, used)
        return found if len(found) <= PROCESSES_MAX else None

    def _listed(self, kind: str, handle: ctypes.c_void_p) -> list[tuple[int, int]] | None:
        for suffix, form in FORMS:
            name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
            if not hasattr(self._calls, name):
                continue
            count, room = ctypes.c_uint(PROCESSES_MAX), (form * PROCESSES_MAX)()
            if self._call(name, handle, ctypes.byref(count), room) != SUCCESS or count.value > PROCESSES_MAX:
                return None
            return [(int(item.pid), int(item.used)) for item in room[: count.value]]
        return None

    def shares(self, handle: ctypes.c_void_p, since: int) -> tuple[dict[int, int], int] | None:
        """Per cent by process in the newest sample after `since`, and its time; None where the device does not tell."""
        name, after = "nvmlDeviceGetProcessUtilization", ctypes.c_ulonglong(since)
        if not hasattr(self._calls, name):
            return None
        count, room = ctypes.c_uint(PROCESSES_MAX), (_Sample * PROCESSES_MAX)()
        code = self._call(name, handle, room, ctypes.byref(count), after)
        if code == NOT_FOUND:  # nothing has run since
            return {}, since
        if code != SUCCESS or count.value > PROCESSES_MAX:
            return None
        newest: dict[int, tuple[int, int]] = {}
        for item in room[: count.value]:
            share = min(FULL, max(int(item.sm), int(item.encoder), int(item.decoder)))
            newest[item.pid] = max(newest.get(item.pid, (0, 0)), (int(item.at), share))
        return {pid: share for pid, (_, share) in newest.items()}, max([since, *(at for at, _ in newest.values())])

    def _call(self, name: str, *arguments: Any) -> int:
        try:
            return int(getattr(self._calls, name)(*arguments))
        except AttributeError:
            raise HostError(f"NVML has no {name}", expected="that of a driver of 2020 or later") from None

    def _must(self, name: str, *arguments: Any) -> None:
        if code := self._call(name, *arguments):
            raise HostError(f"{name} answers {code}", expected="0", fix="nvidia-smi, which says what the driver lacks")


def look(library: Library, handle: ctypes.c_void_p, since: int) -> tuple[dict[str, Any], int]:
    """One device now, as the supervisor is told, and the time of the newest sample."""
    held, shared = library.processes(handle), library.shares(handle, since)
    said: list[list[int | None]] | None = None
    if held is not None:
        shares, since = shared or ({}, since)
        everybody = {**dict.fromkeys(shares, 0), **held}
        said = [[pid, used, shares.get(pid, 0) if shared else None] for pid, used in everybody.items()]
    return {"memory": library.used(handle), "rate": library.rate(handle), "processes": said}, since


def serve(control: socket.socket, _: Mapping[str, str]) -> int:
    """Until the supervisor is gone: {"library", "minors"} is heard, "ready" said, then "seen" for each device."""
    message = entry.first_message(control)
    if message is None:
        return EXIT_HOST
    try:
        bound()
        library = Library(str(message.body["library"]))
        handles = library.handles([int(minor) for minor in message.body["minors"]])
        newest = dict.fromkeys(handles, 0)
        channel.send(control, {"event": "ready"})
        while True:
            for minor, handle in handles.items():
                seen, newest[minor] = look(library, handle, newest[minor])
                channel.send(control, {"event": "seen", "minor": minor, **seen})
            if select.select([control], [], [], EVERY_MS / 1000)[0]:
                return EXIT_KEPT  # it has nothing more to say: this is its end
    except HostError as error:
        channel.send(control, {"event": "failed", "exit": EXIT_HOST, "found": error.found, "expected": error.expected,
                               "fix": error.fix})  # fmt: skip
        return EXIT_HOST
    except (BrokenPipeError, ConnectionResetError):
        return EXIT_KEPT


def bound() -> None:
    """Give up what a library that asks a driver does not need: root, files to write, the network."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(PR_SET_DUMPABLE, 0)  # which a change of user undoes
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))
    version = min(landlock.abi(), LANDLOCK_ABI_MAX)
    if version:
        landlock.restrict(version, [("/", landlock.EXECUTE), ("/dev", landlock.WRITE)], ())


if __name__ == "__main__":
    sys.exit(entry.main(NAME, serve))
