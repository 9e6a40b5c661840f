"""Does a run's evidence hold? Reads files and says so; imports nothing that acts (ARCHITECTURE, verifier).

`python -I -m inbounds.journal.verify RUN_DIR [--anchors FILE] [--key FILE] [--json]`: exit 0 if every check holds, 1 if
one does not. Commits and SSH keys that are not Ed25519 are asked of functions that the caller hands in.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.journal import anchor, chain, checks, sequence, witness
from inbounds.journal.anchor import Anchor
from inbounds.journal.apart import Apart
from inbounds.journal.chain import ChainError, Record
from inbounds.journal.checks import Check, Document, State, answer
from inbounds.journal.contents import Contents
from inbounds.journal.damage import Damage, Fault, of_break
from inbounds.journal.links import CHECKPOINT, Found, Links
from inbounds.journal.manifest import Derivation
from inbounds.journal.note import VerifierKey
from inbounds.journal.people import Checker, People
from inbounds.journal.sequence import Legs
from inbounds.journal.shapes import Columns
from inbounds.journal.tally import Calls
from inbounds.journal.witness import Checkpoints

FILE_BYTES_MAX = checks.FILE_BYTES_MAX
AFTERWARDS = sequence.AFTERWARDS
# What the writer anchors as soon as it is written: without an anchor at the last of them, its loss would not show.
ANCHORED = frozenset({"run.finished", "promotion.decided"})
# Without these nothing is verified, whatever else holds.
ESSENTIAL = frozenset(
    {"chain", "version", "key", "checkpoints", "anchors", "ending", "legs", "stop sequence", "signatures", "manifest"}
    | {"identity", "contract", "blast radius"}
)
JOURNAL = "journal.jsonl"
APART_BYTES_MIN = 16 << 20  # a journal that one process reads in a fraction of a second
CHECKPOINTS_MAX = 200_000  # a decision every two seconds for five days; each takes a millisecond to check


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one run; `ok` only if none fails and each essential one was made and holds.

    `notes` say what these checks do not cover, and what was repaired.
    """

    ok: bool
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        found = [{**check._asdict(), "ok": check.ok, "state": check.state.value} for check in self.checks]
        return {"ok": self.ok, "verdict": self.verdict, "checks": found, "notes": list(self.notes)}

    @property
    def verdict(self) -> str:
        """In two words."""
        if self.ok:
            return "verified"
        return "NOT verified" if any(c.state is State.FAILS for c in self.checks) else "not verified: not all checked"


def verify_run(
    run_dir: Path,
    *,
    anchors: Sequence[Anchor] | None = None,
    keys: Sequence[VerifierKey] | None = None,
    commit_exists: Callable[[str, str], bool] | None = None,
    checker: Checker | None = None,
    processes: int = 1,
) -> Verification:
    """Check everything that a run left as evidence, offline.

    `anchors` and `keys` None: those of the state directory or bundle that the run lies in; a run without any does not
    verify, because a cut or wholly rewritten journal could not be told. `commit_exists(store, commit)` is asked for
    every commit and tree, `checker` for people's signatures with keys that are not Ed25519. `processes` 2: a long
    journal is read by two, for a caller without threads.
    """
    contract, radius = (checks.document(run_dir / name) for name in ("contract.json", "blast_radius.json"))
    try:
        anchors = checks.anchors_beside(run_dir) if anchors is None else anchors
        problem = ""
    except (OSError, ValueError) as error:
        anchors, problem = (), str(error)
    read = _Pass(contract, anchors, checker)
    broken = read.go(run_dir / JOURNAL, processes)
    found = read.found
    if broken is not None and broken.kind != Damage.TORN:
        return Verification(False, (broken,))
    if broken is None and not found.records:
        return Verification(False, (Check("chain", State.FAILS, "0 records", Damage.EMPTY),))
    fine = f"{found.records} records, each follows the one before it"
    accepted = read.accepted
    made = [
        broken or Check("chain", State.HOLDS, fine),
        answer("version", read.version_faults(), f"format {chain.FORMAT}"),
        _key(run_dir, accepted.get("journal_key"), keys),
    ]
    made += [
        read.checkpoint_check(made[2]),
        _anchors(problem, read, anchors),
        answer("ending", read.legs.end_faults, f"ended with {read.legs.code}"),
        answer("legs", read.legs.leg_faults, _legs(read.legs.count)),
        answer("stop sequence", read.legs.stop_faults, "nothing ran after the stop"),
        _signatures(read.people),
        checks.manifest_check(run_dir / "manifest.json", read.derivation, found.records - 1, found.head, found.records),
        checks.identity(run_dir, contract.table(), accepted.get("run_id"), found.records),
        checks.accepted_document("contract", contract, accepted.get("contract_sha256")),
        checks.accepted_document("blast radius", radius, accepted.get("blast_radius_sha256")),
    ]
    if commit_exists is not None:
        made.append(_objects(read.objects, str(accepted.get("store", "")), commit_exists))
    held = {check.name for check in made if check.ok}
    ok = held >= ESSENTIAL and not any(check.state is State.FAILS for check in made)
    return Verification(ok, tuple(made), tuple(read.notes(anchors)))


class _Pass:
    """One pass over the journal, in which every part takes what it needs."""

    def __init__(self, contract: Document, anchors: Sequence[Anchor], checker: Checker | None) -> None:
        placed = frozenset(kept.seq for kept in anchors if kept.seq != anchor.UNPLACED)
        unplaced = frozenset(kept.hash for kept in anchors if kept.seq == anchor.UNPLACED)
        self.links = Links(placed, frozenset(kept.size for kept in anchors if kept.size), unplaced)
        self.people = People(contract.table(), contract.sha256, checker)
        self.legs = Legs(self.people.allows)
        self.checkpoints, self.derivation = Checkpoints(), Derivation()
        self.version: object = None
        self.openings, self.seen_last = 0, -1
        self.accepted: dict[str, Any] = {}
        self.objects: set[str] = set()
        self.repairs: list[str] = []
        self.points: list[Record] = []
        self.found = Found(0, chain.GENESIS, {}, set(), {})
        self.takers: dict[str, list[Callable[[Record], None]]] = {}
        own = {"journal.opened": self._opened, "run.accepted": self._accepted, "journal.recovered": self._recovered}
        own |= {"commit.made": self._named, "snapshot.taken": self._named, CHECKPOINT: self._checkpoint}
        own |= dict.fromkeys(ANCHORED, self._ended)
        for takes in (own, dict.fromkeys(Legs.KINDS, self.legs.take), dict.fromkeys(People.KINDS, self.people.take)):
            for kind, take in takes.items():
                self.takers.setdefault(kind, []).append(take)
        for kind, several in self.derivation.takers.items():
            self.takers.setdefault(kind, []).extend(several)

    def go(self, path: Path, processes: int) -> Check | None:
        """Read it all; a check that fails where the chain breaks off, and what stands before has been taken."""
        try:
            links = Apart(self.links) if processes > 1 and path.stat().st_size > APART_BYTES_MIN else self.links
            wrong = self._read(path, links)
            self.found, broken = links.end()
        except OSError as error:
            return Check("chain", State.FAILS, f"{path.name}: {error.strerror}", Damage.GONE)
        for record in self.points:
            if record.seq in self.found.roots:
                self.checkpoints.take(record, self.found.roots[record.seq])
        self.legs.finish()
        errors = [error for error in (broken, wrong) if isinstance(error, ChainError)]
        if errors:
            return self._broken(path, min(errors, key=lambda error: error.line))
        if wrong is not None:
            words = f"a record that no part of this program writes: {type(wrong).__name__}: {wrong}"[:200]
            return Check("chain", State.FAILS, words, Damage.MALFORMED)
        return None

    def _read(self, path: Path, links: Links | Apart) -> Exception | None:
        """Every block to the chain, every record to those who asked for its kind; what ended it early."""
        contents = Contents(frozenset(self.takers), Calls.MANY, Calls.APART)
        takers, legs = self.takers, self.legs
        try:
            for lines in chain.blocks(path):
                links.take(lines)
                for record in contents.read(lines):
                    if isinstance(record, Columns):
                        for group in record.groups():
                            self.derivation.calls.many(record.kind, *group)
                        continue
                    for take in takers.get(record.kind, ()):
                        take(record)
                    if legs.watching:
                        contents.everything = True
                        if record.kind not in Legs.KINDS:
                            legs.take(record)
                    elif contents.everything:
                        contents.everything = False
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # a ChainError is a ValueError
            return error
        return None

    def _broken(self, path: Path, error: ChainError) -> Check:
        if (version := chain.stated_format(path)) not in (chain.FORMAT, None):
            words = f"a journal of format {version}; this program reads {chain.FORMAT}"
            return Check("chain", State.FAILS, words, Damage.VERSION)
        found = self.found
        kind = of_break(path, error, found.records, found.head)
        words = f"{kind}: {error} (the {found.records} records before it hold)"
        if kind is Damage.TORN:
            words += "; a power loss does that, and recovery repairs it"
        return Check("chain", State.FAILS, words, kind)

    def _opened(self, record: Record) -> None:
        self.openings += 1
        if record.seq == 0:
            self.version = record.data.get("version")

    def _accepted(self, record: Record) -> None:
        self.accepted = self.accepted or record.data
        self.checkpoints.accepted(record)

    def _recovered(self, record: Record) -> None:
        torn = record.data.get("torn")
        if isinstance(torn, dict) and torn:
            words = f"an unfinished last line ({torn.get('bytes')} bytes) was cut off and kept as {torn.get('aside')}"
            self.repairs.append(f"record {record.seq}: repaired after a power loss or a kill: {words}")

    def _named(self, record: Record) -> None:
        self.objects |= {str(record.data[name]) for name in ("commit", "tree") if record.data.get(name)}

    def _ended(self, record: Record) -> None:
        self.seen_last = record.seq

    def _checkpoint(self, record: Record) -> None:
        if len(self.points) >= CHECKPOINTS_MAX:
            raise ChainError("too many checkpoints", f"more than {CHECKPOINTS_MAX}", record.seq + 1)
        self.points.append(record)

    def version_faults(self) -> list[Fault]:
        """The journal begins with its format, which is this one, and no second one begins in it."""
        if self.version != chain.FORMAT:
            return [Fault(Damage.VERSION, f"begins with format {self.version!r}, this program reads {chain.FORMAT}")]
        return [Fault(Damage.TWO_RUNS, "a second journal.opened")] if self.openings > 1 else []

    def checkpoint_check(self, key: Check) -> Check:
        """Every signed tree is this one's, by a key that somebody vouches for, and the end is under one."""
        made = self.checkpoints
        faults = list(made.faults)
        if not faults and made.covered <= self.seen_last:
            words = f"record {self.seen_last} is under no signed checkpoint, the newest covers {made.covered} records"
            faults.append(Fault(Damage.UNSIGNED_TAIL, words))
        fine = f"{made.count} signed trees are those of this journal, the newest over {made.covered} records"
        found = answer("checkpoints", faults, fine)
        if found.ok and not key.ok:
            return Check("checkpoints", State.UNCHECKED, f"{fine}; but nobody vouches for the key", Damage.NO_KEY)
        return found

    def notes(self, anchors: Sequence[Anchor]) -> list[str]:
        """What was repaired, and what these checks leave open."""
        found = list(self.repairs) + [f"not checked: {what}" for what in self.people.unchecked]
        records = self.found.records
        covered = max([self.checkpoints.covered, *(kept.seq + 1 for kept in anchors)], default=0)
        if covered < records:
            found.append(
                f"records {covered} to {records - 1} are behind every checkpoint and anchor: a cut there is silent"
            )
        return found


def _key(run_dir: Path, stated: object, given: Sequence[VerifierKey] | None) -> Check:
    if given is not None:
        return checks.key_check(stated, given, "whoever asks")
    try:
        return checks.key_check(stated, *checks.keys_beside(run_dir))
    except (OSError, ValueError) as error:
        return Check("key", State.FAILS, f"{checks.PUBLIC}: {error}"[:200], Damage.NO_KEY)


def _anchors(problem: str, read: _Pass, anchors: Sequence[Anchor]) -> Check:
    if problem:
        return Check("anchors", State.FAILS, problem, Damage.BAD_ANCHOR)
    return answer("anchors", *witness.against(anchors, read.found, read.checkpoints, read.seen_last))


def _signatures(people: People) -> Check:
    if not people.faults and people.unchecked:
        return Check("signatures", State.UNCHECKED, "; ".join(people.unchecked[: checks.SHOWN]))
    return answer(
        "signatures", people.faults, f"{people.held} signatures of people hold, each over what it is bound to"
    )


def _legs(count: int) -> str:
    return "one leg" if count == 1 else f"{count} legs, each let on by people"


def _objects(names: set[str], store: str, exists: Callable[[str, str], bool]) -> Check:
    missing = [name for name in sorted(names) if not exists(store, name)]
    faults = [Fault(Damage.MISSING_OBJECT, f"{name} is not in the store") for name in missing]
    return answer("store", faults, f"{len(names)} objects are there")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per check, or JSON; 0 if all hold."""
    parser = argparse.ArgumentParser(prog="inbounds-verify", description="Check a run's evidence, offline.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--anchors", type=Path, help="heads kept elsewhere, one JSON object per line")
    parser.add_argument("--key", type=Path, help="the journal's verifier key, as keys/journal.pub has it")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(argv)
    try:
        given = anchor.read(chosen.anchors) if chosen.anchors else None
        keys = checks.read_keys(chosen.key) if chosen.key else None
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found = verify_run(chosen.run_dir, anchors=given, keys=keys, processes=len(os.sched_getaffinity(0)))
    if chosen.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        for check in found.checks:
            # What was found may quote the files: only printable ASCII reaches the terminal.
            print(f"{check.state.value:11}  {check.name}: {ascii(check.detail)[1:-1]}")
        for words in found.notes:
            print(f"note         {ascii(words)[1:-1]}")
        print(found.verdict)
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
