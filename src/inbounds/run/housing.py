"""Where one run's files stand and as whom its jails run: its own directory and user, or a slot of the host service.

A slot is opened at the run's first preflight and found again by its number, which the run's directory keeps. Knows
nothing of what lies on it.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError
from inbounds.contracts.limits import Limits
from inbounds.contracts.reasons import Disposal
from inbounds.run.slotfile import forget, number_of, remember
from inbounds.sandbox.fileevents import FileEvents
from inbounds.sandbox.hardened import RefusalError, ServiceGoneError, Slot, SlotLimits
from inbounds.sandbox.identity import Identity, identity, in_slot
from inbounds.store.salvage import Room

WORKSPACE, JOBS, DECOYS = "workspace", "jobs", "decoys"
# The kernel's own rule ends a run at its wall clock, the jails' PID 1 two seconds later; the watchdog is the third wall
# and so late that an orderly stop with its evidence is over.
WATCHDOG_GRACE_MS = 300_000
# Of the volume ext4 needs for itself: an inode's own bytes, its journal (128 MiB at 4 GiB), bitmaps, what it rounds.
INODE_BYTES, JOURNAL_BYTES, OVERHEAD_PERCENT = 256, 160 << 20, 3
INODES_OURS = 8_192  # snapshots' state, decoys, the judges' own files
PROCESSES_OURS = 16  # bubblewrap twice and PID 1, for each of the few jails that live at once
CPU_PERCENT = 95  # of all: the rest is the host's and the supervisor's
BYTES_MIN = 64 << 20


class Housing:
    """One run's; `slot` is None in rootless mode, and until `open` or `take_up`."""

    def __init__(self, contract: Contract, run_dir: Path, owner_before: Callable[[], int | None]) -> None:
        """`owner_before`: the user number of an earlier supervisor's workspace (rootless)."""
        self.run_dir = run_dir
        self.hardened = contract.mode == "hardened"
        self.encrypted = "encryption" in contract.require
        self.slot: Slot | None = None
        if self.hardened:
            self.identity = Identity(os.getuid(), os.getgid(), dropped=False)
        else:
            self.identity = identity(contract.run_id, owner_before())

    @property
    def place(self) -> Path:
        """Below it stand workspace, jobs and decoys."""
        return Path(self.slot.view) if self.slot else self.run_dir

    @property
    def files(self) -> FileEvents | None:
        """What the slot's processes do to files; None where nobody tells."""
        return self.slot.files if self.slot else None

    def open(self, limits: Limits, gone: Callable[[], None], gap: Callable[[str], None]) -> Identity:
        """A slot for this run, the one it had where there is one.

        `gone` is called should the service end it, `gap` should it lose file events.
        """
        if self.hardened and self.slot is None and not self.take_up():
            made = Slot.open(ceilings(limits, encrypt=self.encrypted))
            try:
                remember(self.run_dir, made.number)
            except BaseException:
                made.discard()
                raise
            self._live_in(made)
        if self.slot:
            self.slot.when_gone(gone)
            if self.slot.files:
                self.slot.files.on_gap(gap)
        return self.identity

    def take_up(self) -> bool:
        """The slot that the run had, if there is one; what ran in it is dead. HostError where it can't be had."""
        number = number_of(self.run_dir)
        if self.slot is None and number is not None:
            try:
                self._live_in(Slot.attach(number))
            except RefusalError as error:
                if error.number != errno.ENOENT:
                    raise
                forget(self.run_dir)  # it was given back, and somebody died before writing that down
        return self.slot is not None

    def again(self) -> Identity:
        """For a stop: the slot, attached where it is not. Where the service is gone, what it left mounted must do."""
        if self.slot is None:
            self.take_up()
        elif not self.slot.alive():
            with contextlib.suppress(HostError):  # it has not come back
                self._live_in(Slot.attach(self.slot.number))
        return self.identity

    def room(self, limits: Limits) -> Room | None:
        """What a copy of the workspace may take elsewhere; None where it can be moved."""
        most = ceilings(limits, encrypt=False)  # what a volume can hold, so that no workspace is refused
        return Room(most.bytes, 2 * most.inodes) if self.hardened else None

    def extend(self, started_ms: int, limits: Limits) -> None:
        """Put the watchdog to where the limits in force put it; between two jails it may also become later."""
        if self.slot:
            self.slot.deadline(_deadline(started_ms, limits))

    def survivors(self) -> str:
        """What is left of the run's processes, in words; HostError where any is, as the host service counts them."""
        if self.slot is None or not self.slot.alive():
            return "no process of the run is alive"
        if left := self.slot.kill():
            raise HostError(f"{left} processes of the run survived a kill", expected="none")
        return "no process of the run is alive, as the host service counts its slot's"

    def leave(self, disposal: Disposal) -> str:
        """Behind the disposal of what stood there: a workspace that stays is kept in root's custody, else all goes."""
        if self.slot is None:
            return ""
        slot, self.slot = self.slot, None
        try:
            if disposal is Disposal.REVERT:
                slot.detach()
                return "; the volume is unmounted, in root's custody"
            slot.discard()
        except ServiceGoneError:  # it does the same when it comes back, but for the destroying
            slot.close()
            return f"; the host service is gone: when it is back, inbounds discard {self.run_dir.name} ends its volume"
        forget(self.run_dir)
        return "; the volume is destroyed"

    def _live_in(self, slot: Slot) -> None:
        self.slot, self.identity = slot, in_slot(slot)


def discard(run_dir: Path) -> None:
    """Destroy what a run's stop has kept in its slot; nothing happens where it has none."""
    if (number := number_of(run_dir)) is not None:
        Slot.discard_kept(number)
        forget(run_dir)


def _deadline(started_ms: int, limits: Limits) -> int:
    return started_ms + limits.wall_clock_ms + WATCHDOG_GRACE_MS


def ceilings(limits: Limits, *, encrypt: bool) -> SlotLimits:
    """What the volume has room for is the contract's; what ext4 takes for itself comes on top."""
    inodes = limits.inodes + INODES_OURS
    own = JOURNAL_BYTES + inodes * INODE_BYTES + limits.disk_bytes * OVERHEAD_PERCENT // 100
    return SlotLimits(
        bytes=max(limits.disk_bytes + own, BYTES_MIN),
        inodes=inodes,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes + PROCESSES_OURS,
        cpu_percent=len(os.sched_getaffinity(0)) * CPU_PERCENT,
        deadline_ms=_deadline(time.time_ns() // 1_000_000, limits),
        encrypt=encrypt,
    )
