"""What an incident record says of one run: from its contract, its journal's beginning and end, and the ledger.

Bounded reads, so that a journal of days is looked at as quickly as one of minutes; each record's own hash is checked,
the whole chain is `inbounds verify`'s to check. Decides nothing and signals nobody.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import InboundsError
from inbounds.journal import chain
from inbounds.journal.chain import Record

JOURNAL = "journal.jsonl"
SETTINGS = "settings.json"
HEAD_BYTES = 256 << 10  # run.accepted is among the first records
TAIL_BYTES = 512 << 10  # hundreds of records before the stop
HOSTS_MAX, TARGETS_MAX = 100, 200  # a person reads them
RUNS_MAX = 1_000  # of a ledger, newest first: more than a host can have alive


@dataclass(slots=True)
class Tail:
    """A journal's end as it grows: where its present leg's stop has come to."""

    run_dir: Path
    stop: Record | None = None
    times: dict[str, int] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    sealed: bool = False
    over: bool = False
    _offset: int = -1

    def look(self) -> None:
        """Take what came since the last look; an unfinished line is waited for."""
        path = self.run_dir / JOURNAL
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(fd).st_size
            if self._offset < 0:
                self._offset = _line_at(fd, max(0, size - TAIL_BYTES))
            chunk = os.pread(fd, max(0, size - self._offset), self._offset)
        finally:
            os.close(fd)
        whole = chunk.rfind(b"\n") + 1
        self._offset += whole
        for line in chunk[:whole].split(b"\n")[:-1]:
            self._take(chain.decode(line))

    def _take(self, record: Record) -> None:
        match record.kind:
            case "run.reauthorized" | "run.recovered":
                self.stop, self.sealed, self.over = None, False, False
                self.times.clear()
                self.steps.clear()
            case "operator.stopped":
                self.times["asked_at_ms"] = record.at_ms
            case "stop.step":
                step = str(record.data.get("step"))
                self.times.setdefault(f"{step}_at_ms", record.at_ms)
                if record.data.get("ok") is True:
                    self.steps[step] = str(record.data.get("detail", ""))
            case "stop.decided" if self.stop is None:
                self.stop = record
            case "journal.checkpoint" if self.stop is not None and not self.sealed:
                self.sealed = True
                self.times["sealed_at_ms"] = record.at_ms
            case "run.finished":
                self.over = True
                self.times["ended_at_ms"] = record.at_ms
            case _:
                return


def _line_at(fd: int, offset: int) -> int:
    """Where the next line begins at or after `offset`."""
    if offset == 0:
        return 0
    end = os.pread(fd, chain.LINE_BYTES_MAX + 1, offset).find(b"\n")
    return offset + end + 1 if end >= 0 else offset


def ends(run_dir: Path) -> tuple[list[Record], bool]:
    """The journal's first and last records, and whether some between were left out; ([], False) where there is none."""
    try:
        fd = os.open(run_dir / JOURNAL, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return [], False
    try:
        size = os.fstat(fd).st_size
        if size <= HEAD_BYTES + TAIL_BYTES:
            return _records(os.pread(fd, size, 0)), False
        start = _line_at(fd, size - TAIL_BYTES)
        return _records(os.pread(fd, HEAD_BYTES, 0)) + _records(os.pread(fd, size - start, start)), True
    finally:
        os.close(fd)


def _records(chunk: bytes) -> list[Record]:
    return [chain.decode(line) for line in chunk[: chunk.rfind(b"\n") + 1].split(b"\n")[:-1]]


def of_contract(run_dir: Path) -> dict[str, Any]:
    """Who and what the run is about, and whose word lets it go on; the contract is compared with what was accepted."""
    from inbounds.run.launch import CONTRACT, read_contract

    if not (run_dir / CONTRACT).exists():
        return {"problem": "it has no contract"}
    contract = read_contract(run_dir)
    conduct = contract.conducted()
    return {
        "thread": contract.thread,
        "repository": contract.repository,
        "store": contract.store,
        "branch": contract.branch,
        "targets": list(contract.targets[:TARGETS_MAX]),
        "agent": {"name": contract.agent, "version": contract.agent_version},
        "model": contract.model,
        "operator": contract.operator,
        "contract_sha256": contract.sha256(),
        "approvals": {
            "wanted": conduct.incident_approvals,
            "by": sorted(conduct.resume_by or contract.operator_keys),
        },
    }


def of_records(records: Iterable[Record]) -> dict[str, Any]:
    """Hosts seen, the last iteration, decoys opened, the accepted contract: from records that were read."""
    hosts: set[str] = set()
    found: dict[str, Any] = {"iteration": 0, "decoys": [], "accepted_sha256": ""}
    for record in records:
        data = record.data
        if record.kind == "run.accepted":
            found["accepted_sha256"] = str(data.get("contract_sha256", ""))
        elif record.kind == "iteration.started":
            found["iteration"] = int(data["n"])
        elif record.kind == "denial" and data.get("sensitive") is True:
            found["decoys"].append(str(data.get("detail", "")))
        if isinstance(data.get("host"), str) and record.kind in ("model.usage", "external.call"):
            hosts.add(str(data["host"]))
    return {**found, "decoys": sorted(set(found["decoys"]))[:HOSTS_MAX], "hosts_seen": sorted(hosts)[:HOSTS_MAX]}


def providers(run_dir: Path) -> list[dict[str, str]]:
    """Whom the gateway could reach with the operator's keys: {"name", "url"}, from the run's settings."""
    try:
        named = json.loads((run_dir / SETTINGS).read_bytes())["gateway"]["upstreams"]
        return [{"name": str(name), "url": str(one["base_url"])} for name, one in sorted(named.items())]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the record then names no key; it says elsewhere that the run's settings cannot be read


def money(ledger: Path) -> dict[str, tuple[int, int]]:
    """What the ledger says of its latest runs: run -> (spent, reserved) in micro-dollars; {} where it says nothing."""
    from inbounds.gateway.ledger import spend

    try:
        rows = spend(ledger, kind="run", limit=RUNS_MAX)
    except InboundsError:
        return {}
    return {row.name: (row.settled_micro_usd + row.unknown_micro_usd, row.reserved_micro_usd) for row in rows}


def landed_since(runs: Iterable[Path], since_ms: int) -> list[dict[str, Any]]:
    """Protected refs that runs have moved since then, oldest first: {"ref", "commit", "run_id", "at_ms"}."""
    found: list[dict[str, Any]] = []
    for run_dir in runs:
        path = run_dir / JOURNAL
        try:
            if path.stat().st_mtime * 1000 < since_ms or not _mentions(path, b'"kind":"promotion.decided"'):
                continue
        except OSError:
            continue  # it is being discarded: nothing of it stands
        for record in ends(run_dir)[0]:
            said: Mapping[str, Any] = record.data
            if record.kind == "promotion.decided" and said.get("outcome") == "promoted" and record.at_ms >= since_ms:
                found.append({"ref": str(said["target"]), "commit": str(said["commit"]), "run_id": run_dir.name,
                              "at_ms": record.at_ms})  # fmt: skip
    return sorted(found, key=lambda item: item["at_ms"])


def _mentions(path: Path, what: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return what in file.read(TAIL_BYTES)
