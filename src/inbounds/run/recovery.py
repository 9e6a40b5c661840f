"""What became of a run whose supervisor may be dead, and how it is brought to its end (E13, H15).

A run is running while its journal's lock is held. Recovery replays the journal, takes the lock, and goes through the
same stop sequence as every other cause; nothing resumes by itself (E14).
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Any, Literal

from inbounds.contracts.errors import HostError
from inbounds.journal import chain
from inbounds.kernel.decide import decide
from inbounds.kernel.events import Failed, parse
from inbounds.kernel.state import State
from inbounds.run.home import Home
from inbounds.run.launch import JOURNAL

# Between the run's directory and the first record: the supervisor's own start, seconds on a loaded machine.
START_GRACE_S = 20.0

RunPhase = Literal["starting", "running", "orphaned", "finished"]


def locked(run_dir: Path) -> bool:
    """Whether a living process writes this run's journal."""
    try:
        fd = os.open(run_dir / "journal.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def phase(home: Home, run_id: str) -> RunPhase:
    """Where a run is, asked of the operating system and of its journal."""
    run_dir = home.run(run_id)
    if locked(run_dir):
        return "finished" if _finished(run_dir) else "running"
    if _finished(run_dir):
        return "finished"
    if not (run_dir / JOURNAL).exists():
        age = time.time() - run_dir.stat().st_mtime
        return "starting" if age < START_GRACE_S else "orphaned"
    return "orphaned"


def replay(run_dir: Path) -> State:
    """The kernel's state after every record of the journal."""
    state = State()
    for record in chain.records(run_dir / JOURNAL):
        event = parse(record.kind, record.data)
        if event is not None:
            state, _ = decide(state, event, record.at_ms)
    return state


def ending(home: Home, run_id: str) -> dict[str, str]:
    """How a run ended, from its journal: {"run_id", "code", "why"}; code is "" while it has not."""
    found = {"run_id": run_id, "code": "", "why": ""}
    for record in chain.records(home.run(run_id) / JOURNAL):
        if record.kind == "stop.decided":
            found.update(code=str(record.data["code"]), why=str(record.data["why"]))
    return found


def recover(home: Home, run_id: str) -> dict[str, str]:
    """End a run whose supervisor is dead, with STOP_HOST_FAILED unless a stop was decided already."""
    from inbounds.run.supervisor import Supervisor

    run_dir = home.run(run_id)
    if not (run_dir / "contract.json").exists():
        raise HostError(f"{run_id} has no contract: it never started", fix=f"inbounds discard {run_id}")
    Supervisor.recovering(home, run_dir).finish(Failed.KIND, {"part": "supervisor", "detail": "it died during the run"})
    return ending(home, run_id)


def _finished(run_dir: Path) -> bool:
    last: dict[str, Any] = {}
    try:
        for record in chain.records(run_dir / JOURNAL):
            last[record.kind] = record
    except FileNotFoundError:
        return False
    return "run.finished" in last
