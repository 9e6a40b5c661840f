"""The port Worker in simulated time: one piece of work after the other, each in steps between which the world goes on.

As run/worker.py: what raises is heard of, except where the run is halting.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from simjails import Jail

from inbounds.run.crew import HaltedError

if TYPE_CHECKING:
    from simlife import Life

Steps: TypeAlias = Iterator[int | Jail]  # milliseconds until the next step, or the jail for whose end it waits


class Worker:
    """Pieces of work in order."""

    def __init__(self, life: "Life", failed: Callable[[Exception], None]) -> None:
        self._life, self._failed = life, failed
        self._work: deque[tuple[str, Callable[[], None]]] = deque()
        self._started = self._busy = self._over = False
        self.ref = ""
        self.steps: Steps | None = None  # left by a slow part that was called

    def start(self) -> None:
        """Begin."""
        self._started = True
        self._kick()

    def put(self, ref: str, work: Callable[[], None]) -> None:
        """Have it done for the effect `ref`."""
        self._work.append((ref, work))
        self._kick()

    def end(self, seconds: float) -> None:
        """Begin nothing further, and wait so long."""
        self._over = True
        if self._busy and seconds:
            self._life.pass_(int(seconds * 1000), lambda: not self._busy)

    def _kick(self) -> None:
        if self._started and not self._busy and not self._over and self._work:
            self._busy = True
            self._life.after(self._life.rng.randrange(3), self._begin)

    def _begin(self) -> None:
        ref, work = self._work.popleft()
        self.ref = ref
        self.steps = None
        try:
            work()
        except Exception as error:
            self._raised(error)
            return
        finally:
            self.ref = ""
        self._step(ref, self.steps if self.steps is not None else iter(()))

    def _step(self, ref: str, steps: Steps) -> None:
        self.ref = ref
        try:
            wait = next(steps)
        except StopIteration:
            self._done()
        except Exception as error:
            self._raised(error)
        else:
            if isinstance(wait, int):
                self._life.after(wait, lambda: self._step(ref, steps))
            elif wait.alive:
                wait.waiters.append(lambda: self._life.after(1, lambda: self._step(ref, steps)))
            else:
                self._life.after(1, lambda: self._step(ref, steps))
        finally:
            self.ref = ""

    def _raised(self, error: Exception) -> None:
        if not isinstance(error, HaltedError):
            self._failed(error)
        self._done()

    def _done(self) -> None:
        self._busy = False
        self._kick()
