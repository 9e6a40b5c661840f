"""The one thread in which slow effects run, one after the other: a jail is bound to the thread that started it.

Knows neither what a piece of work does nor what its failure leads to; says by which effect it is done.
"""

import queue
import threading
from collections.abc import Callable

from inbounds.run.crew import HaltedError


class Worker:
    """Pieces of work in order; `failed` hears of each that raises, except where the run is stopping already."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        """Make the thread; `start` starts it."""
        self._failed = failed
        self._work: queue.Queue[tuple[str, Callable[[], None]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._drain, name="worker", daemon=True)
        self._doing = threading.local()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, ref: str, work: Callable[[], None]) -> None:
        """Have it done for the effect `ref` after what was handed in before."""
        self._work.put((ref, work))

    @property
    def ref(self) -> str:
        """The effect for which the calling thread works; "" in every other thread."""
        return str(getattr(self._doing, "ref", ""))

    def end(self, seconds: float) -> None:
        """Begin nothing further, and wait so long for what is being done."""
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _drain(self) -> None:
        while (item := self._work.get()) is not None:
            self._doing.ref, work = item
            try:
                work()
            except HaltedError:
                continue  # the run is stopping; what was asked for is moot
            except Exception as fault:
                self._failed(fault)
