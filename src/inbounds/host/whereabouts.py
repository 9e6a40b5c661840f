"""Through which mounts a slot's processes see files: an execution whose process has ended is told by its mount.

Most programs end before their event is read. What a jail executes it executes through mounts of its own namespace,
which a process that lives (its PID 1) has shown. Knows no files and no users.
"""

import os
import re
import time

# How long a namespace is believed in after the last look that found a process in it: its numbers are given away again.
GRACE_SECONDS = 1.0
MOUNTS_MAX = 16_384  # of all jails of a slot; one has some 60
KEEPERS_MAX = 16  # processes by which a namespace is known to be there; its PID 1 comes first
MOUNTINFO_BYTES_MAX = 4 << 20
NUMBER = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)


class Whereabouts:
    """The mounts of one slot's namespaces, as far as its living processes have shown them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._host = _namespace("self")
        self._known = dict[int, str]()  # a mount's number -> its namespace
        self._keepers = dict[str, list[int]]()
        self._seen_at = dict[str, float]()

    def learn(self, pid: int, fd: int) -> None:
        """A process of the slot, which lives, has used this file."""
        namespace = _namespace(pid)
        if not namespace or namespace == self._host:
            return
        if len(self._known) > MOUNTS_MAX:
            self._forget(*self._keepers)
        keepers = self._keepers.setdefault(namespace, [])
        if pid not in keepers and len(keepers) < KEEPERS_MAX:
            keepers.append(pid)
        self._seen_at[namespace] = time.monotonic()
        if self._known.get(_mount(fd)) != namespace:
            self._known |= dict.fromkeys(_mounts(pid), namespace)

    def ours(self, fd: int) -> bool:
        """Whether this file was opened in a jail of the slot, whoever it was."""
        namespace = self._known.get(_mount(fd), "")
        if not namespace:
            return False
        living = [pid for pid in self._keepers[namespace] if _namespace(pid) == namespace]
        if living:
            self._keepers[namespace], self._seen_at[namespace] = living, time.monotonic()
        elif time.monotonic() - self._seen_at[namespace] > GRACE_SECONDS:
            self._forget(namespace)
            return False
        return True

    def _forget(self, *namespaces: str) -> None:
        for namespace in namespaces:
            del self._keepers[namespace], self._seen_at[namespace]
        self._known = {number: namespace for number, namespace in self._known.items() if namespace in self._keepers}


def _namespace(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:  # it is gone
        return ""


def _mount(fd: int) -> int:
    """The number of the mount by which a descriptor was opened; 0 where the kernel does not say."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        found = NUMBER.search(file.read())
    return int(found[1]) if found else 0


def _mounts(pid: int) -> list[int]:
    """The numbers of a process's mounts; none where it is gone."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            return [int(line.split(None, 1)[0]) for line in file.read(MOUNTINFO_BYTES_MAX).splitlines() if line]
    except (OSError, ValueError):
        return []
