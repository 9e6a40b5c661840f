"""Hardened mode tried out: a small slot is opened, filled beyond its limits, a jail run and frozen in it, given back.

For `inbounds doctor`: what the service says it gives is believed where it was seen, or cannot be seen by who asks.
Knows nothing of policies and runs.
"""

import errno
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.sandbox.hardened import Slot, SlotLimits
from inbounds.sandbox.identity import in_slot
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.maturity import reached
from inbounds.sandbox.probe import HostFacts, probe
from inbounds.sandbox.spec import Bind, JailSpec

LIMITS = SlotLimits(
    bytes=32 << 20,
    inodes=1_024,
    memory_bytes=512 << 20,
    processes=64,
    cpu_percent=100,
    deadline_ms=0,  # set at each attempt
)
LIVES_SECONDS = 300  # should this process die over it, the watchdog is not far
JAIL_SECONDS = 20
HOW = "a slot was opened and filled beyond its limits, a jail run and frozen in it"
WITNESS = "witness"


def attempt() -> HostFacts:
    """What a slot's jail has in force here. HostError where no slot can be had."""
    slot = Slot.open(replace(LIMITS, deadline_ms=time.time_ns() // 1_000_000 + LIVES_SECONDS * 1000))
    try:
        facts = probe(slot)
        wrong = _seen(slot) if not facts.problem else {}
    finally:
        slot.discard()
    found = dict(facts.enforcement) | {name: f"absent: {why}" for name, why in wrong.items()}
    got = reached(found)
    return replace(facts, enforcement=found, level=got.level, lacking=got.lacking)


def _seen(slot: Slot) -> dict[str, str]:
    """Mechanism -> what an attempt showed against it."""
    wrong = {}
    place = Path(slot.view) / "trial"
    place.mkdir(mode=0o755)
    if not _run(slot, place):
        return {"volume_image": "a jail could not write to its volume"}
    if slot.files is not None:
        seen = slot.files.take()
        if f"trial/{WITNESS}" not in seen.written:
            wrong["file_events"] = "a file that a jail wrote was not told of"
        elif not seen.executed:
            wrong["file_events"] = "no program that a jail executed was told of"
        elif not seen.complete:
            wrong["file_events"] = seen.why
    if not _fills(place / "large"):
        wrong["bytes_limit"] = f"more than {LIMITS.bytes >> 20} MiB could be written"
    if not _counts(place):
        wrong["inodes_limit"] = f"more than twice {LIMITS.inodes} files could be made"
    if not slot.freeze()[0]:
        wrong["freezer"] = "the kernel did not freeze the slot"
    return wrong


def _run(slot: Slot, place: Path) -> bool:
    """A jail writes one file."""
    with tempfile.TemporaryDirectory(prefix="inbounds-trial-") as scratch:
        binds = (Bind(str(place), "/work", writable=True),)
        spec = JailSpec(role="trial", argv=("touch", f"/work/{WITNESS}"), binds=binds, require=())
        jail = spawn(spec, identity=in_slot(slot), scratch=Path(os.path.realpath(scratch)))
        try:
            jail.go()
            jail.wait(JAIL_SECONDS)
        finally:
            jail.kill()
    return (place / WITNESS).exists()


def _fills(path: Path) -> bool:
    """Whether the volume is full before as much is written as it was asked to hold."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, LIMITS.bytes + 1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise HostError(f"the volume could not be filled: {error.strerror}", where=str(path)) from error
        return True
    finally:
        os.close(fd)
        path.unlink()
    return False


def _counts(place: Path) -> bool:
    """Whether it takes no more files than twice what was asked for (ext4 rounds up to whole blocks of them)."""
    try:
        for number in range(2 * LIMITS.inodes):
            os.close(os.open(place / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise HostError(f"the volume's files could not be counted: {error.strerror}", where=str(place)) from error
        return True
    return False
