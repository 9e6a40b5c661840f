"""The ceilings on a run's GPUs, watched from outside (E7): what NVML's program says is held against them.

A GPU's memory and time have no cgroup, so that nothing but looking bounds them. What cannot be told apart counts as
the run's; silence, an odd word and the program's end are findings too. Knows nothing of how a run is stopped.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.program.child import Child
from inbounds.sandbox import nvml
from inbounds.sandbox.gpu import Grant

SILENCE_SECONDS = 15  # thirty looks; a driver that takes longer for one does not watch
END_SECONDS = 5  # a process that waits in a broken driver cannot be killed, and must not hold the stop up
PERCENT_MAX = 100
PID_MAX = 1 << 22  # the kernel's own ceiling
BYTES_MAX = 1 << 50
WORDS_CHARS_MAX = 300  # of what somebody else says, in a finding


@dataclass(frozen=True, slots=True)
class Ceiling:
    """On each device: bytes at once, and per cent for seconds at a stretch."""

    memory_bytes: int
    percent: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Why the run must end: a ceiling was exceeded, or (not `exceeded`) nobody watches any more."""

    exceeded: bool
    words: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One device at one moment; None is what it does not tell. processes: pid -> (bytes, per cent)."""

    minor: int
    memory: int
    rate: int | None
    processes: Mapping[int, tuple[int | None, int | None]] | None

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> "Seen":
        """From NVML's program, which a vendor's library can have say anything; ValueError for what is not its form."""
        if set(said) != {"event", "minor", "memory", "rate", "processes"} or said["event"] != "seen":
            raise ValueError("other words than those of a look")
        listed = said["processes"]
        if listed is not None and (not isinstance(listed, list) or len(listed) > 2 * nvml.PROCESSES_MAX):
            raise ValueError("a list of processes that is none")
        processes: dict[int, tuple[int | None, int | None]] = {}
        for item in listed or ():
            if not isinstance(item, list) or len(item) != 3:  # noqa: PLR2004 - pid, bytes, per cent
                raise ValueError("a process that is none")
            pid = _number(item[0], PID_MAX)
            processes[pid] = _optional(item[1], BYTES_MAX), _optional(item[2], PERCENT_MAX)
        return cls(
            _number(said["minor"], 1 << 10),
            _number(said["memory"], BYTES_MAX),
            _optional(said["rate"], PERCENT_MAX),
            None if listed is None else processes,
        )

    def held(self, ours: set[int]) -> tuple[int, str]:
        """Bytes that count as the run's, and whose they are: its processes', or all of the device's."""
        figures = [used for pid, (used, _) in (self.processes or {}).items() if pid in ours]
        told = [used for used in figures if used is not None]
        if self.processes is None or len(told) < len(figures):
            return self.memory, "all of its processes together (it does not tell them apart)"
        return sum(told), "the run's processes"

    def busy(self, ours: set[int]) -> int | None:
        """Per cent that counts as the run's; None where the device tells neither."""
        figures = [share for pid, (_, share) in (self.processes or {}).items() if pid in ours]
        told = [share for share in figures if share is not None]
        if self.processes is None or len(told) < len(figures):
            return self.rate
        return min(PERCENT_MAX, sum(told))


@dataclass(slots=True)
class _Device:
    """What is remembered of one device from look to look."""

    strangers: set[int] = field(default_factory=set)  # listed, and no process of this host, at the last look
    above_s: float = 0.0  # time above the ceiling counts up, time below it down: a pause now and then gains nothing
    at: float | None = None


class GpuWatch:
    """Watches one run's GPUs until `stop`; `finding` is what the supervisor asks now and then."""

    def __init__(self, child: Child, grant: Grant, ceiling: Ceiling, pids: Callable[[], set[int]]) -> None:
        """Use `start`."""
        self._child, self._ceiling, self._pids = child, ceiling, pids
        self._devices = {minor: _Device() for minor in grant.minors}
        self._heard = {minor: time.monotonic() for minor in grant.minors}
        self._lock = threading.Lock()
        self._found: Finding | None = None
        self._told = False  # or there is nothing to be told any more

    @classmethod
    def start(cls, grant: Grant, ceiling: Ceiling, pids: Callable[[], set[int]]) -> "GpuWatch":
        """Start NVML's program and wait until it knows every device; HostError where it does not.

        `pids` gives every living process of the run, as this host numbers them.
        """
        child = Child.start(nvml.NAME, "watch over the GPU")
        try:
            child.send({"library": grant.library, "minors": list(grant.minors)})
            child.expect("ready")
            watch = cls(child, grant, ceiling, pids)
            for _ in grant.minors:
                watch._first(child.expect("seen"))
        except BaseException:
            child.stop(seconds=0)
            raise
        child.listen(watch._hear, watch._ended)
        return watch

    def finding(self) -> Finding | None:
        """What ends the run, told once; None while all is well."""
        with self._lock:
            if self._told:
                return None
            late = [minor for minor, at in self._heard.items() if time.monotonic() - at > SILENCE_SECONDS]
            if late and self._found is None:
                self._found = Finding(False, f"nothing was heard of GPU {late[0]} for {SILENCE_SECONDS} s")
            self._told = self._found is not None
            return self._found

    def stop(self) -> None:
        """End the program; a driver that does not let go of it is not waited for."""
        with self._lock:
            self._told = True
        ending = threading.Thread(target=self._child.stop, kwargs={"seconds": END_SECONDS / 2}, daemon=True)
        ending.start()
        ending.join(END_SECONDS)

    def _first(self, said: Mapping[str, Any]) -> None:
        """The first look at a device, before any jail has it; HostError where it cannot be watched."""
        try:
            seen = self._seen(said)
        except ValueError as error:
            raise HostError(str(error), expected="NVML's own words") from None
        if seen.busy(set()) is None:
            raise HostError(
                f"GPU {seen.minor} does not tell how busy it is",
                expected="a GPU that NVML can measure, alone or by process",
                fix="take it out of resources.gpu",
            )

    def _seen(self, said: Mapping[str, Any]) -> Seen:
        try:
            seen = Seen.parse(said)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the watch over the GPU says {error}") from None
        if seen.minor not in self._devices:
            raise ValueError(f"the watch over the GPU speaks of GPU {seen.minor}, which nobody granted")
        return seen

    def _hear(self, said: Mapping[str, Any]) -> None:
        if said.get("event") == "failed":
            self._keep(False, f"NVML failed: {str(said.get('found', ''))[:WORDS_CHARS_MAX]}")
            return
        try:
            seen = self._seen(said)
        except ValueError as error:
            self._keep(False, str(error))
            return
        if found := self._judge(seen, time.monotonic()):
            self._keep(True, found)
        with self._lock:
            self._heard[seen.minor] = time.monotonic()

    def _judge(self, seen: Seen, now: float) -> str:
        """What is exceeded, in words; "" where nothing is."""
        device, ceiling = self._devices[seen.minor], self._ceiling
        ours = self._counted(seen, device)
        held, whose = seen.held(ours)
        if held > ceiling.memory_bytes:
            return f"GPU {seen.minor}: {held >> 20} MiB held by {whose}, {ceiling.memory_bytes >> 20} allowed"
        busy = seen.busy(ours)
        if busy is None:
            self._keep(False, f"GPU {seen.minor} does not tell how busy it is")
            return ""
        passed = 0.0 if device.at is None else now - device.at
        device.at = now
        device.above_s = device.above_s + passed if busy > ceiling.percent else max(0.0, device.above_s - passed)
        if device.above_s > ceiling.seconds:
            return f"GPU {seen.minor}: above {ceiling.percent} % for more than {ceiling.seconds} s, now {busy} %"
        return ""

    def _counted(self, seen: Seen, device: _Device) -> set[int]:
        """The run's processes, and those listed twice in a row that this host does not know: they may be the run's."""
        if not seen.processes:
            device.strangers = set()
            return set()
        ours = self._pids()
        strangers = {pid for pid in seen.processes if pid not in ours and not os.path.exists(f"/proc/{pid}")}
        before, device.strangers = device.strangers, strangers
        return ours | (strangers & before)

    def _ended(self) -> None:
        if not self._child.stopping:
            self._keep(False, "the watch over the GPU ended by itself")

    def _keep(self, exceeded: bool, words: str) -> None:
        """The first finding is the one that counts; what follows may be its consequence."""
        with self._lock:
            self._found = self._found or Finding(exceeded, words)


def _number(said: Any, most: int) -> int:
    if type(said) is not int or not 0 <= said <= most:
        raise ValueError(f"{str(said)[:WORDS_CHARS_MAX]!r} where a number up to {most} belongs")
    return said


def _optional(said: Any, most: int) -> int | None:
    return None if said is None else _number(said, most)
