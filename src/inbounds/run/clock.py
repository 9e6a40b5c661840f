"""The run's clock: Unix milliseconds that no clock change can move, suspended time included (E1, E16).

Read once from the wall clock at the process's start, and carried on by CLOCK_BOOTTIME: setting the clock back does not
lengthen a run, and a laptop's sleep does not stop its deadline.
"""

import time

_OFFSET_NS = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def now_ms() -> int:
    """Unix milliseconds; the only clock that reaches a journal."""
    return (_OFFSET_NS + time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000
