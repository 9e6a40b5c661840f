"""A drill as signed evidence: a journal of its own, one record a case, its head signed and kept apart; and read again.

Below INBOUNDS_HOME/drills/<id>/. Only the last signed record makes a drill count; an interrupted one has none. Knows
nothing of how cases run.
"""

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inbounds import __version__
from inbounds.contracts.ids import RUN_ID
from inbounds.journal import anchor, chain, witness
from inbounds.journal.chain import ChainError
from inbounds.journal.links import CHECKPOINT, Links
from inbounds.journal.note import ORIGIN, VerifierKey
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal

STARTED, CASE, FINISHED = "drill.started", "drill.case", "drill.finished"
JOURNAL = "journal.jsonl"
DRILLS_MAX = 200  # looked at, newest first: one that is older than so many others is of no use
COUNTED_MIN = 100  # a drill in which most cases had no control says little of a host
DAY_MS = 86_400_000


def host_facts() -> dict[str, str]:
    """What a drill is of beside policy: this machine, its kernel, this version. The machine's id itself is not told."""
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:  # a container, as a rule; its name has to do
        machine = b""
    told = hashlib.sha256(b"inbounds drill\0" + machine.strip() + b"\0" + os.fsencode(platform.node())).hexdigest()
    return {"host": told[:32], "kernel": platform.release(), "inbounds": __version__}


class DrillJournal:
    """The writer of one drill's evidence. Use as a context; `case` may be called from any thread, one at a time."""

    def __init__(self, home: Path, drill_id: str, signer: Signer) -> None:
        """Make the directory and open the journal; HostError as the journal's writer."""
        directory = home / "drills" / drill_id
        anchors = home / "anchors" / f"drill-{drill_id}.jsonl"
        anchors.parent.mkdir(mode=0o700, exist_ok=True)
        (home / "drills").mkdir(mode=0o700, exist_ok=True)
        self._journal = Journal.open(directory / JOURNAL, anchors=anchors, signer=signer)
        self._key, self._id = str(signer.key), drill_id

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Leave the file as it is."""
        self._journal.close()

    def started(self, facts: Mapping[str, Any]) -> None:
        """Of what, in which mode, by which key."""
        self._journal.append(STARTED, {"drill_id": self._id, "journal_key": self._key, **host_facts(), **facts})

    def case(self, facts: Mapping[str, Any]) -> None:
        """One case's outcome."""
        self._journal.append(CASE, dict(facts))

    def finished(self, facts: Mapping[str, Any]) -> None:
        """The counts, on disk, signed, and its head kept apart."""
        self._journal.append(FINISHED, dict(facts), sync=True)
        self._journal.keep_anchor()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a drill's evidence says. `problem`: why it is not evidence (broken, unsigned, unfinished), or ""."""

    drill_id: str
    started: Mapping[str, Any]
    finished: Mapping[str, Any]
    cases: int
    at_ms: int
    problem: str = ""

    @property
    def clean(self) -> bool:
        """A whole drill with enough counted cases, none escaped, none inconclusive."""
        found = self.finished
        return (
            not self.problem
            and found.get("complete") is True
            and (found.get("escaped"), found.get("inconclusive")) == (0, 0)
            and isinstance(found.get("counted"), int)
            and found["counted"] >= COUNTED_MIN
        )


def read(directory: Path, key: VerifierKey) -> Recorded:
    """Check one drill's chain and its signed head against `key`, and say what it holds; bad evidence is a `problem`."""
    started: Mapping[str, Any] = {}
    finished: Mapping[str, Any] = {}
    signed, cases, at_ms, problem, last, head = -1, 0, 0, "", 0, ""
    try:
        links = Links()
        for block in chain.blocks(directory / JOURNAL):
            links.take(block)
            for line in block:
                record = chain.link(line).record()
                last, head = record.seq, record.hash
                started = record.data if record.kind == STARTED else started
                if record.kind == FINISHED:
                    finished, at_ms = record.data, record.at_ms
                cases += record.kind == CASE
                if record.kind == CHECKPOINT:
                    fault = witness.over(
                        str(record.data.get("note", "")),
                        ORIGIN + directory.name,
                        record.seq,
                        links.root(record.seq),
                        key,
                    )
                    signed, problem = record.seq, fault.words if fault else problem
    except (OSError, ChainError, ValueError) as error:
        problem = str(error)
    problem = problem or _apart(directory, last, head)
    problem = problem or ("it was not finished" if not finished else "its end is not signed" if signed != last else "")
    if not problem and (finished.get("cases") != cases or started.get("drill_id") != directory.name):
        problem = "its end is of another drill"
    return Recorded(directory.name, started, finished, cases, at_ms, problem)


def _apart(directory: Path, last: int, head: str) -> str:
    """What the head that was kept beside the drills says against this journal, or ""."""
    try:
        kept = anchor.read(directory.parent.parent / "anchors" / f"drill-{directory.name}.jsonl")
    except (OSError, ValueError) as error:
        return str(error)
    if not kept or (kept[-1].seq, kept[-1].hash) == (last, head):
        return ""  # none: it was not finished, or its anchors are gone, and its signature has the word
    return f"another end was kept apart, at record {kept[-1].seq}"


def drills(home: Path) -> Iterator[Path]:
    """The drills of a state directory, newest first."""
    try:
        names = os.listdir(home / "drills")
    except FileNotFoundError:
        return
    for name in sorted((name for name in names if RUN_ID.fullmatch(name)), reverse=True)[:DRILLS_MAX]:
        yield home / "drills" / name


def lacking(home: Path, key: VerifierKey, mode: str, days: int, now_ms: int | None = None) -> str:
    """Why no clean drill of this host, kernel, version and mode is younger than `days`; "" if one is."""
    now = int(time.time() * 1000) if now_ms is None else now_ms
    wanted = {**host_facts(), "mode": mode}
    newest = ""
    for directory in drills(home):
        found = read(directory, key)
        other = [name for name, value in wanted.items() if found.started.get(name) != value]
        age = (now - found.at_ms) // DAY_MS
        if found.problem:
            why = found.problem
        elif other:
            why = f"it was of another {' and '.join(other)}"
        elif not found.clean:
            why = f"it was not clean: {found.finished.get('escaped')} escaped, {found.finished.get('counted')} counted"
        elif not 0 <= age < days:
            why = f"it is {age} days old"
        else:
            return ""
        newest = newest or f"the newest is {found.drill_id}: {why}"
    return newest or "there was none"
