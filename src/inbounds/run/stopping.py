"""The stop sequence's steps on disk: evidence, disposal, manifest, report (E12, E13); the same for every cause.

Each step is safe to repeat after a crash. Decides nothing: the kernel gave the order.
"""

import os
import time
from itertools import takewhile
from pathlib import Path

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError, InboundsError
from inbounds.contracts.reasons import DISPOSED, Disposal
from inbounds.journal import chain, manifest
from inbounds.run.launch import JOURNAL
from inbounds.sandbox.volume import Volume
from inbounds.store.salvage import Room
from inbounds.store.store import Store

# In an incident of many runs the slow part of each stop waits this long at most, so that every other is sealed first.
HOLD_MS_MAX = 1_000
HOLD_LOOK_S = 0.01
PATCH = "diff.patch"
PATCH_BYTES_MAX = 8 << 20  # what a report can show; the trees themselves are in the store
CHANGES_MAX = 2_000  # changes listed in one record; the tree itself is the whole truth
LEGS_MAX = 1_000  # stops that people have looked at and signed for, each one
AUTHOR = "inbounds <inbounds@localhost.invalid>"


def give_way(until_ms: int, record: str) -> None:
    """Wait until then (Unix milliseconds), or until the incident's record is there: the other runs are sealed then."""
    until = time.monotonic() + min(until_ms - time.time_ns() // 1_000_000, HOLD_MS_MAX) / 1000
    while time.monotonic() < until and not os.path.exists(record):
        time.sleep(HOLD_LOOK_S)


def evidence(store: Store, contract: Contract, run_dir: Path, tree: str) -> str:
    """Keep a tree and its diff against the base, whatever becomes of the workspace; returns the evidence commit."""
    (run_dir / PATCH).write_bytes(store.patch(contract.base_tree, tree, PATCH_BYTES_MAX))
    message = f"Evidence of run {contract.run_id}\n\nPlan: {contract.plan.plan_id}\n"
    commit = store.commit(tree, [contract.base_commit], message, AUTHOR, 0)
    name = f"refs/inbounds/evidence/{contract.run_id}"
    store.set_ref(name, commit, store.ref(name))
    return commit


def dispose(
    volume: Volume, disposal: Disposal, run_dir: Path, checkpoint: str, room: Room | None = None
) -> tuple[str, str]:
    """Carry the disposal out; returns the step's name and a detail. `room`: what a copy may take (hardened mode)."""
    match disposal:
        case Disposal.KEEP:
            volume.discard()
            return DISPOSED[disposal], "the result is on the agent branch; the workspace is gone"
        case Disposal.REVERT:
            volume.restore(checkpoint)
            return DISPOSED[disposal], f"the workspace is at tree {checkpoint}"
        case Disposal.QUARANTINE:
            volume.quarantine(str(_apart(volume, run_dir)), room)
            return DISPOSED[disposal], "the workspace is kept apart, unreadable to others"


def quarantines(run_dir: Path) -> list[Path]:
    """What was set apart of this run, one directory a leg, oldest first."""
    named = (run_dir / (f"quarantine-{leg}" if leg > 1 else "quarantine") for leg in range(1, LEGS_MAX))
    return list(takewhile(Path.exists, named))  # they are numbered without a gap


def _apart(volume: Volume, run_dir: Path) -> Path:
    """Where this leg's workspace goes; behind a crash in the middle of it, where it has gone already."""
    there = quarantines(run_dir)
    if there and not volume.exists:
        return there[-1]
    return run_dir / (f"quarantine-{len(there) + 1}" if there else "quarantine")


def write_manifest(run_dir: Path) -> Path:
    """Derive manifest.json from the journal; replaced whole."""
    path = run_dir / "manifest.json"
    temporary = path.with_suffix(".new")
    try:
        temporary.write_bytes(manifest.encode(manifest.derive(chain.records(run_dir / JOURNAL))))
        temporary.chmod(0o600)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise HostError(f"the manifest cannot be written: {error.strerror}", where=str(path)) from error
    return path


def write_report(run_dir: Path) -> str:
    """Render report.html; a failure is said, since the journal and manifest stand without it."""
    from inbounds.console.report import render

    try:
        render(run_dir)
    except (InboundsError, OSError) as error:
        return f"the report could not be written: {error}"
    return ""
