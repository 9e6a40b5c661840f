"""The run's clock: Unix milliseconds that no clock change can move, suspended time included (E1, E16).

Read once from the wall clock at the process's start, and carried on by CLOCK_BOOTTIME: setting the clock back does not
lengthen a run, and a laptop's sleep does not stop its deadline.
"""

import time
from collections.abc import Callable


class Clock:
    """Milliseconds from two sources in nanoseconds: the wall's, asked once, and one that counts from boot."""

    def __init__(self, wall_ns: Callable[[], int], boot_ns: Callable[[], int]) -> None:
        """Ask the wall now."""
        self._boot_ns, self._offset_ns = boot_ns, wall_ns() - boot_ns()

    def __call__(self) -> int:
        """Unix milliseconds."""
        return (self._offset_ns + self._boot_ns()) // 1_000_000


now_ms = Clock(time.time_ns, lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))  # the only one that reaches a journal
