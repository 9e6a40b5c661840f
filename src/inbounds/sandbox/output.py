"""A jail's stdout and stderr into files of the host, up to a number of bytes each: a flood costs neither disk nor CPU.

The program writes into pipes; beyond the ceiling what it writes is thrown away, slowly, so that it is held back.
Knows nothing of what is written.
"""

import os
import select
import threading
import time

CHUNK = 1 << 16
# beyond the ceiling one chunk per stream in this time: at most 1.3 MB/s, which costs the host nothing
PAUSE_SECONDS = 0.05


class Output:
    """Two pipes and the thread that empties them; `written` counts per stream what came, kept or not."""

    def __init__(
        self, stdout_path: str, stderr_path: str, bytes_max: int, uid: int, gid: int, *, shared: bool = False
    ) -> None:
        """Open the files (made or emptied, 0600) and the pipes; the writing ends belong to the jail's user.

        `shared`: or, where they can't be given to it, are writable for whoever has a descriptor of them.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._files: dict[int, int] = {}
        self.written: list[int] = [0, 0]
        self.lost = ""  # why output below the ceiling was not kept (a full disk)
        self.writing: list[int] = []
        self._order: list[int] = []
        self._bytes_max = bytes_max
        for path in (stdout_path, stderr_path):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            # /dev/stdout is opened anew by some programs, which asks for the pipe's own permissions
            os.fchown(writing, uid, gid)
            if shared:
                os.fchmod(writing, 0o622)
            self._files[reading] = os.open(path, flags, 0o600)
            self._order.append(reading)
            self.writing.append(writing)
        self._thread = threading.Thread(target=self._empty, name="inbounds-output", daemon=True)

    def started(self) -> None:
        """The jail has its own copies of the writing ends: close these and begin to read."""
        for fd in self.writing:
            os.close(fd)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until both pipes are at their end, which they are once the jail has no process left."""
        self._thread.join(seconds)

    def _empty(self) -> None:
        waiting = select.poll()
        for reading in self._order:
            waiting.register(reading, select.POLLIN)
        left = set(self._order)
        while left:
            flooded = False
            for reading, _ in waiting.poll():
                part = os.read(reading, CHUNK)
                index = self._order.index(reading)
                if not part:
                    waiting.unregister(reading)
                    left.discard(reading)
                    os.close(reading)
                    os.close(self._files[reading])
                    continue
                room = max(0, self._bytes_max - self.written[index])
                self.written[index] += len(part)
                flooded = flooded or room < len(part)
                if room and not self.lost:
                    self._keep(self._files[reading], part[:room])
            if flooded:
                time.sleep(PAUSE_SECONDS)

    def _keep(self, fd: int, part: bytes) -> None:
        view = memoryview(part)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            # the pipes must still be emptied, or the program would hang; the exit says what was lost
            self.lost = f"output was not kept: {error.strerror}"
