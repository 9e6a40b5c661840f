"""The thread that looks: at what people ask for, at the frozen contract, at the volume; and at once when it is woken.

It looks and posts; it decides nothing. A signal handler may wake it: writing one byte into a pipe takes no lock.
"""

import os
import select
import threading
from collections.abc import Callable

LOOK_S = 0.5  # how late a request or a full volume may be seen where nobody wakes it
DRAIN_BYTES = 4096


class Watch:
    """Calls `look` twice a second and when woken; `failed` hears of a look that raised."""

    def __init__(self, look: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Make the thread; `start` starts it."""
        self._look, self._failed = look, failed
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def wake(self) -> None:
        """Look now; safe in a signal handler."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # it has been woken more often than it could look

    def stop(self) -> None:
        """Look no more; returns when the last look is over."""
        self._over = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._read], [], [], LOOK_S)
            if ready:
                os.read(self._read, DRAIN_BYTES)
            if self._over:
                return
            try:
                self._look()
            except Exception as error:
                self._failed(error)
