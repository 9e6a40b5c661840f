"""The wall clock of slots, kept without any supervisor: deadlines on a clock that nobody can set and no sleep stops.

One timer descriptor for a session's loop. A deadline comes as Unix time and is kept on CLOCK_BOOTTIME at once. Nothing
is carried over a restart: whatever ends the service ends all that runs. Knows nothing of how a slot is ended.
"""

import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Callable

RETRY_MS = 1_000  # a slot that did not end is ended again: whatever was in the way may be over
ARMED_MS_MAX = 3_600_000  # a far deadline is looked at again: the timer takes no number that a client chose
CLOCK_BOOTTIME, TFD_CLOEXEC, TFD_NONBLOCK, TFD_ABSTIME = 7, os.O_CLOEXEC, os.O_NONBLOCK, 1
TIMER = struct.Struct("@4l")  # interval and value, seconds and nanoseconds


def boot_ms() -> int:
    """Milliseconds since the machine started, those asleep included."""
    return time.clock_gettime_ns(CLOCK_BOOTTIME) // 1_000_000


def unix_ms() -> int:
    """What the clock on the wall says, which root may set."""
    return time.time_ns() // 1_000_000


class Deadlines:
    """Which slot ends when; all numbers are milliseconds on one clock that only goes forward. Pure."""

    def __init__(self) -> None:
        self._of = dict[int, int]()

    def set(self, slot: int, at: int, *, living: bool) -> int:
        """The deadline in force: while a jail lives it only comes nearer."""
        if living and slot in self._of:
            at = min(at, self._of[slot])
        self._of[slot] = at
        return at

    def clear(self, slot: int) -> None:
        """The slot has none any more; none before is no error."""
        self._of.pop(slot, None)

    def next(self) -> int | None:
        """The nearest one."""
        return min(self._of.values(), default=None)

    def due(self, now: int) -> list[int]:
        """Slots whose deadline has come, the earliest first; each stays until `clear` or `set`."""
        return [slot for at, slot in sorted((at, slot) for slot, at in self._of.items()) if at <= now]


class Watchdog:
    """`expired` is called with a slot at its deadline, and again each second until it says that nothing is left."""

    def __init__(self, expired: Callable[[int], bool], *, now: Callable[[], int] = boot_ms) -> None:
        self._expired, self._now, self._deadlines = expired, now, Deadlines()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._checked(self._libc.timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK))

    def fileno(self) -> int:
        """Readable when `handle` has something to do."""
        return self._timer

    def set(self, slot: int, unix_deadline_ms: int, *, living: bool) -> int:
        """Take a deadline; the one in force, as Unix time by today's clock. A later one only where no jail lives."""
        offset = unix_ms() - self._now()
        at = self._deadlines.set(slot, unix_deadline_ms - offset, living=living)
        self._arm()
        return at + offset

    def clear(self, slot: int) -> None:
        """The slot is over."""
        self._deadlines.clear(slot)
        self._arm()

    def handle(self) -> None:
        """End what is due. One that can't be ended keeps nobody else from it."""
        with contextlib.suppress(BlockingIOError):  # asked without need
            os.read(self._timer, 8)
        for slot in self._deadlines.due(self._now()):
            ended = False
            with contextlib.suppress(OSError):  # it is tried again: a fault must never be the way around a deadline
                ended = self._expired(slot)
            if ended:
                self._deadlines.clear(slot)
            else:
                self._deadlines.set(slot, self._now() + RETRY_MS, living=False)
        self._arm()

    def close(self) -> None:
        """Let go of the timer."""
        os.close(self._timer)

    def _arm(self) -> None:
        at, now = self._deadlines.next(), self._now()
        left = 0 if at is None else min(max(at - now, 1), ARMED_MS_MAX)  # 0 would disarm it
        until = time.clock_gettime_ns(CLOCK_BOOTTIME) + left * 1_000_000 if at is not None else 0
        value = TIMER.pack(0, 0, *divmod(until, 1_000_000_000))
        self._checked(self._libc.timerfd_settime(self._timer, TFD_ABSTIME, value, None))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timer: {os.strerror(number)}")
        return result
