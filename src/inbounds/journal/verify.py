"""Does a run's evidence hold? Reads files and says so; imports nothing that acts (ARCHITECTURE, verifier).

`python -I -m inbounds.journal.verify RUN_DIR [--anchors FILE] [--json]`: exit 0 if every check holds, 1 if one does
not. Whether the commits exist is asked of a function that the caller hands in: reading git is not this program's.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inbounds.contracts.canonical import digest
from inbounds.journal import anchor, chain, manifest
from inbounds.journal.chain import ChainError, Record
from inbounds.journal.sequence import stop_faults

# contract.json, blast_radius.json, manifest.json: the largest is a manifest with thousands of files and findings.
FILE_BYTES_MAX = 64 << 20
# After run.finished only people and the gate still speak; nothing of the run does.
AFTERWARDS = frozenset(
    {
        "promotion.decided",
        "operator.decision",
        "notice.sent",
        "verdict",
        "jail.started",
        "jail.exited",
        "work.discarded",
        "journal.recovered",
        "journal.migrated",
        "journal.clock_set_back",
    }
)


class Check(NamedTuple):
    """One question and its answer; `detail` says what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one run; `ok` only if every one holds."""

    ok: bool
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {"ok": self.ok, "checks": [check._asdict() for check in self.checks]}


def verify_run(
    run_dir: Path,
    *,
    anchors: Sequence[anchor.Anchor] | None = None,
    commit_exists: Callable[[str, str], bool] | None = None,
) -> Verification:
    """Check chain, anchors, stop sequence, manifest and contract of a finished run.

    `anchors` None: those beside the run directory; a run without any does not verify, because a truncated or wholly
    rewritten journal could not be told. `commit_exists(store, commit)` is asked for every commit and snapshot tree.
    """
    checks: list[Check] = []
    records = _records(run_dir / "journal.jsonl", checks)
    if records:
        checks.append(_version(records))
        checks.append(_anchors(run_dir, records, anchors))
        checks.append(_ending(records))
        checks.append(_answer("stop sequence", stop_faults(records), "nothing ran after the stop"))
        checks.append(_manifest(run_dir, records))
        accepted = next((r.data for r in records if r.kind == "run.accepted"), {})
        checks.append(_identity(run_dir, records, accepted))
        checks.append(_hashed(run_dir / "contract.json", accepted.get("contract_sha256"), "contract"))
        checks.append(_hashed(run_dir / "blast_radius.json", accepted.get("blast_radius_sha256"), "blast radius"))
        if commit_exists is not None:
            checks.append(_objects(records, str(accepted.get("store", "")), commit_exists))
    return Verification(bool(records) and all(check.ok for check in checks), tuple(checks))


def _records(path: Path, checks: list[Check]) -> list[Record]:
    """The chain as far as it holds; a break is a failed check, and nothing else is asked of a broken chain."""
    found: list[Record] = []
    try:
        for record in chain.linked(chain.records(path)):
            found.append(record)  # noqa: PERF402 - what was read before a break is counted in its report
    except ChainError as error:
        checks.append(Check("chain", False, f"{error} (the {len(found)} records before it hold)"))
        return []
    except OSError as error:
        checks.append(Check("chain", False, f"{path.name}: {error.strerror}"))
        return []
    checks.append(Check("chain", bool(found), f"{len(found)} records, each follows the one before it"))
    return found


def _version(records: list[Record]) -> Check:
    first = records[0]
    version = first.data.get("version")
    ok = first.kind == "journal.opened" and type(version) is int and version <= chain.FORMAT
    again = [r.seq for r in records[1:] if r.kind == "journal.opened"]
    if ok and again:
        return Check("version", False, f"record {again[0]} opens a second journal")
    return Check("version", ok, f"format {version}" if ok else f"begins with {first.kind}, format {version!r}")


def _anchors(run_dir: Path, records: list[Record], given: Sequence[anchor.Anchor] | None) -> Check:
    """Heads kept elsewhere against the file: what finds a truncated tail and a chain computed anew."""
    if given is None:
        place = anchor.beside(run_dir)
        try:
            given = anchor.read(place) if place else ()
        except (OSError, ValueError) as error:
            return Check("anchors", False, str(error))
    if not given:
        return Check("anchors", False, "no anchor outside the run's directory: truncation would not show")
    for kept in given:
        if kept.seq >= len(records):
            lost = kept.seq - len(records) + 1
            return Check("anchors", False, f"truncated: {kept.source} has seen record {kept.seq}; {lost} missing")
        if records[kept.seq].hash != kept.hash:
            return Check("anchors", False, f"rewritten: record {kept.seq} is not the one that {kept.source} has seen")
    newest = max(kept.seq for kept in given)
    last = max((r.seq for r in records if r.kind in ("run.finished", "promotion.decided")), default=-1)
    if newest < last:
        return Check("anchors", False, f"record {last} has no anchor, the newest is at {newest}")
    return Check("anchors", True, f"{len(given)} heads kept elsewhere agree, the newest at record {newest}")


def _ending(records: list[Record]) -> Check:
    """Exactly one run.accepted and one run.finished, and after that only people and the gate.

    More than one stop.decided is for `stop_faults` to judge: a recovery within the stop repeats it.
    """
    counts = {kind: sum(r.kind == kind for r in records) for kind in ("run.accepted", "stop.decided", "run.finished")}
    faults = [f"{n} records {kind}" for kind, n in counts.items() if n == 0 or (n > 1 and kind != "stop.decided")]
    end = next((r for r in records if r.kind == "run.finished"), None)
    stop = next((r for r in records if r.kind == "stop.decided"), None)
    if end is not None:
        faults += [
            f"record {r.seq}: {r.kind} after the end" for r in records[end.seq + 1 :] if r.kind not in AFTERWARDS
        ]
        if stop is not None and stop.data.get("code") != end.data.get("code"):
            faults.append(f"stopped with {stop.data.get('code')}, finished with {end.data.get('code')}")
    return _answer("ending", faults, f"ended with {end.data.get('code') if end else ''}")


def _manifest(run_dir: Path, records: list[Record]) -> Check:
    try:
        stored = _read(run_dir / "manifest.json")
    except OSError as error:
        return Check("manifest", False, f"manifest.json: {error.strerror}")
    except ValueError as error:
        return Check("manifest", False, str(error))
    try:
        derived = manifest.derive(records)
        expected = manifest.encode(derived)
    except (ValueError, TypeError, AttributeError) as error:
        return Check("manifest", False, f"cannot be derived from this journal: {error}")
    if stored == expected:
        return Check("manifest", True, "is what the journal gives, byte for byte")
    try:
        said = json.loads(stored)
        differ = sorted(k for k in {*said, *derived} if said.get(k) != derived.get(k)) or ["its encoding"]
    except (ValueError, TypeError, AttributeError, RecursionError):
        differ = ["it is no JSON object"]
    return Check("manifest", False, f"is not what the journal gives: {', '.join(differ)[:200]}")


def _identity(run_dir: Path, records: list[Record], accepted: dict[str, Any]) -> Check:
    """The journal is this run's: a whole journal of another run in its place is not."""
    named = accepted.get("run_id")
    try:
        contract = json.loads(_read(run_dir / "contract.json"))
        bound = contract.get("run_id", named)
    except (OSError, ValueError, AttributeError, RecursionError):
        bound = named  # the contract check says what is wrong with it
    faults = []
    if bound != named:
        faults.append(f"the contract is of run {bound}, the journal of {named}")
    place = anchor.beside(run_dir)
    if place is not None and named != run_dir.name:
        faults.append(f"the directory is of run {run_dir.name}, the journal of {named}")
    return _answer("identity", faults, f"run {named}, {len(records)} records")


def _hashed(path: Path, stated: object, name: str) -> Check:
    try:
        found = digest(json.loads(_read(path)))
    except OSError as error:
        return Check(name, False, f"{path.name}: {error.strerror}")
    except (ValueError, TypeError, RecursionError) as error:
        return Check(name, False, f"{path.name} has no canonical form: {error}"[:200])
    if found != stated:
        return Check(name, False, f"{path.name} is not the one that the run accepted")
    return Check(name, True, f"{path.name} is the one that the run accepted")


def _objects(records: list[Record], store: str, exists: Callable[[str, str], bool]) -> Check:
    wanted = [r.data.get("commit") for r in records if r.kind == "commit.made"]
    wanted += [r.data.get("tree") for r in records if r.kind in ("commit.made", "snapshot.taken")]
    names = sorted({str(name) for name in wanted if name})
    missing = [name for name in names if not exists(store, name)]
    return _answer("store", [f"{name} is not in the store" for name in missing], f"{len(names)} objects are there")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path.name} is longer than {FILE_BYTES_MAX} bytes")
    return content


def _answer(name: str, faults: list[str], fine: str) -> Check:
    shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")  # noqa: PLR2004 - one line
    return Check(name, not faults, shown or fine)


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per check, or JSON; 0 if all hold."""
    parser = argparse.ArgumentParser(prog="inbounds-verify", description="Check a run's evidence, offline.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--anchors", type=Path, help="heads kept elsewhere, one JSON object per line")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(argv)
    try:
        given = anchor.read(chosen.anchors) if chosen.anchors else None
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found = verify_run(chosen.run_dir, anchors=given)
    if chosen.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        for check in found.checks:
            # What was found may quote the files: only printable ASCII reaches the terminal.
            print(f"{'holds' if check.ok else 'FAILS'}  {check.name}: {ascii(check.detail)[1:-1]}")
        print("verified" if found.ok else "NOT verified")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
