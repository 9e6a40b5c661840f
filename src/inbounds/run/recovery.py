"""What became of a run whose supervisor may be dead, and how it is brought to its end (E13, H15).

A run is running while its journal's lock is held. Recovery takes the lock, replays the journal, and goes through the
same stop sequence as every other cause, or through what was left of it. That a run goes on instead is for
`inbounds recover` (a supervisor that died, E16) and for a signature (a stop, E14): run/assemble.py.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import digest
from inbounds.contracts.documents import Notify
from inbounds.contracts.errors import HostError
from inbounds.journal import chain
from inbounds.journal.verify import AFTERWARDS
from inbounds.kernel.events import Failed, OperatorStopped
from inbounds.kernel.state import Phase
from inbounds.run.home import Home
from inbounds.run.launch import BLAST, CONTRACT, JOURNAL, LOG, SETTINGS, read_contract
from inbounds.run.replay import records, replay

# Between the run's directory and the first record: the supervisor's own start, seconds on a loaded machine.
START_GRACE_S = 20.0
BLOCK_BYTES = 64 << 10
WORDS_BYTES_MAX = 500  # of a dead supervisor's log, for a person to read
_KIND = re.compile(rb'"hash":"[0-9a-f]{64}","kind":"([a-z_.]{1,64})","prev":"[0-9a-f]{64}","seq":[0-9]{1,16}\}')

RunPhase = Literal["starting", "running", "orphaned", "finished"]


def locked(run_dir: Path) -> bool:
    """Whether a living process writes this run's journal."""
    return _lock(run_dir)[0]


def _lock(run_dir: Path) -> tuple[bool, bool]:
    """(held by a living process, left behind by one that did not close in order)."""
    try:
        fd = os.open(run_dir / "journal.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False, False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, False
    else:
        return False, os.fstat(fd).st_size > 0
    finally:
        os.close(fd)


def phase(home: Home, run_id: str) -> RunPhase:
    """Where a run is, asked of the operating system and of its journal's end."""
    run_dir = home.run(run_id)
    held, left = _lock(run_dir)
    finished = _finished(run_dir)
    if held:
        return "finished" if finished else "running"
    if finished:
        # A writer that died behind the last record may have left the manifest or the report unwritten.
        return "orphaned" if left else "finished"
    if not (run_dir / JOURNAL).exists():
        age = time.time() - run_dir.stat().st_mtime
        return "starting" if age < START_GRACE_S else "orphaned"
    return "orphaned"


def ending(home: Home, run_id: str) -> dict[str, str]:
    """How a run ended, from its journal: {"run_id", "code", "why"}; code is "" while it has not."""
    found = {"run_id": run_id, "code": "", "why": ""}
    for record in records(home.run(run_id)):
        if record.kind == "stop.decided":
            found.update(code=str(record.data["code"]), why=str(record.data["why"]))
    return found


def may_go_on(home: Home, run_id: str) -> bool:
    """Whether `inbounds recover` would take up this run whose supervisor died (E16): policy's word, and no stop yet."""
    run_dir = home.run(run_id)
    if not (run_dir / JOURNAL).exists():
        return False
    contract, tampered = trusted(home, run_id)
    if tampered or contract.conducted().recovery != "continue":
        return False
    return replay(records(run_dir)).state.phase not in (Phase.NEW, Phase.STOPPING, Phase.FINISHED)


def recover(home: Home, run_id: str, asked: Mapping[str, Any] | None = None) -> dict[str, str]:
    """End a run whose supervisor is dead, with STOP_HOST_FAILED unless a stop was decided already.

    `asked` is operator.stopped's data where a person ends it (an incident).
    """
    from inbounds.journal.signing import open_signer
    from inbounds.run.assemble import CLOSED, assemble

    run_dir = home.run(run_id)
    contract, tampered = trusted(home, run_id)
    part, detail = ("contract", tampered) if tampered else ("supervisor", _last_words(run_dir))
    assembled = assemble(home, run_dir, contract, CLOSED, open_signer(home.keys))
    kind, data = (OperatorStopped.KIND, dict(asked)) if asked and not tampered else (
        Failed.KIND, {"part": part, "detail": detail})  # fmt: skip
    assembled.finish(kind, data)
    return ending(home, run_id)


def trusted(home: Home, run_id: str) -> tuple[Contract, str]:
    """A run's contract, and what was tampered with ("" for nothing); HostError where there is no contract."""
    run_dir = home.run(run_id)
    if not (run_dir / CONTRACT).exists() or not (run_dir / SETTINGS).exists():
        raise HostError(f"{run_id} has no contract: it never started", fix=f"inbounds discard {run_id}")
    return _trusted(run_dir, read_contract(run_dir))


def _trusted(run_dir: Path, contract: Contract) -> tuple[Contract, str]:
    """The contract; where it is not the accepted one, what recovery writes to is taken from the journal (E8)."""
    if not (run_dir / JOURNAL).exists():
        return contract, ""
    accepted = next((record.data for record in records(run_dir) if record.kind == "run.accepted"), None)
    if accepted is None:
        return contract, ""
    if accepted["contract_sha256"] == contract.sha256():
        return contract, _other_radius(run_dir, accepted["blast_radius_sha256"])
    kept: dict[str, Any] = {name: accepted[name] for name in
                            ("run_id", "thread", "store", "branch", "base_commit", "base_tree")}  # fmt: skip
    return msgspec.structs.replace(contract, **kept, notify=Notify()), f"{CONTRACT} is not what was accepted"


def _other_radius(run_dir: Path, accepted: str) -> str:
    try:
        same = digest(json.loads((run_dir / BLAST).read_bytes())) == accepted
    except (OSError, ValueError):
        same = False
    return "" if same else f"{BLAST} is not what was accepted"


def _last_words(run_dir: Path) -> str:
    try:
        said = (run_dir / "logs" / LOG).read_bytes()[-WORDS_BYTES_MAX:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        said = ""
    last = said.rsplit("\n", 1)[-1]
    return f"it died during the run{': ' + last if last else ''}"


def _finished(run_dir: Path) -> bool:
    """Whether run.finished stands in the journal, read from its end: only what may follow it is passed over."""
    try:
        with (run_dir / JOURNAL).open("rb") as file:
            for line in _backwards(file.fileno()):
                match = _KIND.fullmatch(line, max(0, line.rfind(b'"hash":"')))
                if match is None:
                    return False  # no record: what reads the whole chain says more
                if match[1] == b"run.finished":
                    return True
                if match[1].decode() not in AFTERWARDS:
                    return False
    except FileNotFoundError:
        return False
    return False


def _backwards(fd: int) -> Iterator[bytes]:
    """Whole lines of a file from its end, without their ends; an unfinished last one is left out."""
    position, rest = os.fstat(fd).st_size, b""
    whole = False
    while position > 0:
        step = min(BLOCK_BYTES, position)
        position -= step
        rest = os.pread(fd, step, position) + rest
        *lines, tail = reversed(rest.split(b"\n"))
        for line in lines:
            if whole:
                yield line
            whole = True  # behind the last line end there is nothing, or a torn line
        rest = tail
        if len(rest) > chain.LINE_BYTES_MAX:
            return
    if whole and rest:
        yield rest
