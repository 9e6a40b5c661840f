"""Which jails a drill makes: rootless ones by the supervisor's own launcher, hardened ones in slots.

One value that runner and attack pass on; nothing else of the drill depends on the mode. A hardened case has a slot of
its own, as a run has: user, volume, control groups.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inbounds.contracts.errors import HostError
from inbounds.sandbox import hardened
from inbounds.sandbox.identity import Identity, identity, in_slot
from inbounds.sandbox.jail import Jail, spawn
from inbounds.sandbox.spec import JailLimits, JailSpec

# A case's volume: far more than any case writes, and quickly made; a run's is as large as its policy says.
SLOT_BYTES, SLOT_INODES = 256 << 20, 20_000
PROCESSES_OURS = 16  # bubblewrap twice and PID 1
CPU_PERCENT = 95  # of all: the rest is the host's and the drill's
WATCHDOG_S = 600  # the third wall, behind the case's own deadline and the drill's


@dataclass(frozen=True, slots=True)
class House:
    """Where one attack's workspace stands, and as whom its jail runs."""

    identity: Identity
    place: Path

    def spawn(self, spec: JailSpec, scratch: Path) -> Jail:
        """A sealed jail that waits for its go, as run/crew.py makes one."""
        return spawn(spec, identity=self.identity, scratch=scratch)


class Mode(Protocol):
    """What an attack needs of a mode."""

    @property
    def name(self) -> str:
        """The word after --mode."""

    def house(self, directory: Path, limits: JailLimits) -> AbstractContextManager[House]:
        """A place for one attack below `directory`, gone at the end."""


@dataclass(frozen=True, slots=True)
class Rootless:
    """Jails as every run has them without the host service."""

    identity: Identity
    name: str = "rootless"

    @contextmanager
    def house(self, directory: Path, limits: JailLimits) -> Iterator[House]:
        """The arena's own directory."""
        del limits
        yield House(self.identity, directory)


@dataclass(frozen=True, slots=True)
class Hardened:
    """Jails in slots of the host service."""

    name: str = "hardened"

    @contextmanager
    def house(self, directory: Path, limits: JailLimits) -> Iterator[House]:
        """A slot for this attack alone. Its number stands in a file, for the sweeper of a drill that was killed."""
        slot = hardened.Slot.open(
            hardened.SlotLimits(
                bytes=SLOT_BYTES,
                inodes=SLOT_INODES,
                memory_bytes=limits.memory_bytes,
                processes=limits.processes + PROCESSES_OURS,
                cpu_percent=len(os.sched_getaffinity(0)) * CPU_PERCENT,
                deadline_ms=int((time.time() + WATCHDOG_S) * 1000),
            )
        )
        try:
            (directory / SLOT).write_text(str(slot.number), encoding="ascii")
            yield House(in_slot(slot), Path(slot.view))
        finally:
            slot.discard()


SLOT = "slot"


def give_back(top: Path) -> None:
    """Destroy the slots that a killed drill left with the host service; HostError where one stays."""
    for note in top.glob(f"*/jail/{SLOT}"):
        hardened.Slot.discard_kept(int(note.read_text(encoding="ascii")))


def choose(name: str, token: str) -> Mode:
    """The mode by its name; HostError, with what to type, where this host does not have it."""
    if name == "rootless":
        return Rootless(identity(f"drill-{token}"))
    reachable = hardened.reach()
    if reachable.problem:
        raise HostError(
            f"there is no hardened mode here: {reachable.problem}",
            expected="the host service",
            fix=reachable.fix or "inbounds doctor",
        )
    return Hardened()
