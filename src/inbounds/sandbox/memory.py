"""How much memory a jail holds, as its PID 1 sees it in /proc: where no cgroup counts, somebody has to (E7).

What cannot be asked for is bounded from above, and never by more than what the whole host has gained of its kind.
Part of PID 1: standard library only, importing little. Kernel memory but page tables and sockets is not counted.
"""

from __future__ import annotations

import os

# Lines of /proc/PID/status. A process gives itself any name, "RssAnon: 0" for one, but no line break in it. Page tables
# (VmPTE): reading one byte of every 2 MiB of an untouched mapping costs the host 4 KiB each, and is in nobody's RSS.
HELD = (b"\nRssAnon:", b"\nRssShmem:", b"\nVmSwap:", b"\nHugetlbPages:", b"\nVmPTE:")
KIB = 1 << 10
# A socket's queue holds what its sender may send; the filter lets nobody raise that. Those of any program are free.
SOCKETS_FREE = 64
# TCP grows its buffers by itself: the third numbers of tcp_rmem and tcp_wmem as Linux has them.
TCP_BYTES = 10 << 20
MAPS_BYTES_MAX = 8 << 20  # of one process's memory map: 65,530 mappings of some 100 bytes
SHARED_ANONYMOUS = b"/dev/zero (deleted)"


class Memory:
    """What a jail holds from now on, against `limit`; all in bytes.

    `socket_bytes`: how much one socket may have sent that nobody has read (net.core.wmem_default).
    """

    def __init__(self, limit: int, socket_bytes: int) -> None:
        """Notes how much shared memory the host has now."""
        self._limit, self._socket_bytes = limit, socket_bytes
        self._shmem_least = _shmem()

    def used(self) -> int:
        """Private and shared-anonymous memory, shared ones counted each time, which errs on the side of the host.

        Shared memory that is in no process's resident set is looked for only where it could make the difference: its
        pages stay when who wrote them unmaps them, or ends.
        """
        processes = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        held = sum(_of(f"/proc/{name}") for name in processes) + self._sockets()
        now = _shmem()
        self._shmem_least = min(self._shmem_least, now)
        gained = now - self._shmem_least
        if held <= self._limit < held + gained:
            held += min(gained, _shared(processes, otherwise=gained))
        return held

    def _sockets(self) -> int:
        """Of all sockets of this network namespace, those on their way through another one's queue included."""
        numbers = _read("/proc/net/sockstat", 1 << 12).split()
        used = int(numbers[numbers.index(b"used") + 1])
        tcp = numbers.index(b"TCP:")
        inuse, pages = int(numbers[tcp + 2]), int(numbers[tcp + 10])
        buffers = min(inuse * TCP_BYTES, pages * os.sysconf("SC_PAGE_SIZE"))  # pages are the host's
        return max(0, used - SOCKETS_FREE) * self._socket_bytes + buffers


def _shared(processes: list[str], otherwise: int) -> int:
    """The sizes of all shared anonymous mappings, each counted once; `otherwise` where one may not be asked for."""
    objects: dict[bytes, int] = {}
    for name in processes:
        try:
            lines = _read(f"/proc/{name}/maps", MAPS_BYTES_MAX).splitlines()
        except PermissionError:  # it made itself undumpable
            return otherwise
        for line in lines:
            if line.endswith(SHARED_ANONYMOUS):
                span, _, offset, _, inode, *_ = line.split(None, 5)
                first, _, last = span.partition(b"-")
                end = int(offset, 16) + int(last, 16) - int(first, 16)
                objects[inode] = max(objects.get(inode, 0), end)
    return sum(objects.values())


def _of(process: str) -> int:
    """Bytes held by one process (or thread) by its directory in /proc; 0 once it has ended."""
    try:
        with open(f"{process}/status", "rb") as file:
            status = file.read()
        if HELD[0] not in status and b"/task/" not in os.fsencode(process):
            # its first thread has ended: the others, which hold the same memory, are told of one by one
            return max((_of(f"{process}/task/{name}") for name in os.listdir(f"{process}/task")), default=0)
    except OSError:
        return 0  # it ended between the listing and the reading
    total = 0
    for key in HELD:
        _, found, rest = status.partition(key)
        if found:
            total += int(rest.split(None, 1)[0]) * KIB
    return total


def _shmem() -> int:
    """Bytes of shared memory on the host, of whomever."""
    _, _, rest = _read("/proc/meminfo", 1 << 13).partition(b"\nShmem:")
    return int(rest.split(None, 1)[0]) * KIB


def _read(path: str, limit: int) -> bytes:
    """Up to `limit` bytes; b"" for a process that has ended."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        parts = []
        while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
            parts.append(part)
            limit -= len(part)
    except ProcessLookupError:
        return b""
    finally:
        os.close(fd)
    return b"".join(parts)
