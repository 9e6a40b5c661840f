"""A small signed journal with its anchors, as a run leaves one, and what the real verifier says of it.

The run in it failed its tests and was denied a host, which is what a forger wants to be rid of. Whole runs with
manifest and contract are the verifier's own tests' business; here stand the checks that need the journal alone.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from inbounds.contracts.canonical import canonical, digest
from inbounds.journal import anchor, chain
from inbounds.journal.merkle import Tree
from inbounds.journal.note import ORIGIN, Checkpoint
from inbounds.journal.signing import Signer, open_signer
from inbounds.journal.verify import verify_run
from inbounds.journal.writer import Journal

RUN_ID = "20261122-100000-d00d00"
AT_MS = 1_795_341_600_000  # any time will do; a fixed one keeps two journals of a case alike
JOURNAL, CONTRACT = "journal.jsonl", "contract.json"
CHECKS = ("chain", "version", "key", "checkpoints", "anchors")
Step = tuple[str, dict[str, Any]]


def steps() -> list[Step]:
    """What happened: two iterations, a denial, failing tests, money spent, a stop without success."""
    done: list[Step] = []
    for n in (1, 2):
        done += [
            ("iteration.started", {"n": n}),
            ("model.usage", {"request": n, "cost_micro_usd": 41_000, "spent_micro_usd": 41_000 * n}),
            ("agent.said", {"n": n, "text": "All tests pass."}),
            ("denial", {"kind": "name", "what": "name", "detail": "exfil.example", "sensitive": False}),
            ("verdict", {"n": n, "judge": "tests", "outcome": "FAIL", "summary": "3 of 9 tests fail", "findings": []}),
            ("iteration.finished", {"n": n, "failing_before": 3, "failing_after": 3, "progress": False}),
            ("commit.made", {"n": n, "commit": f"{n}" * 40, "tree": "a" * 40, "branch": "agent/drill"}),
        ]
    stop = {"code": "STOP_NO_PROGRESS", "why": "2 iterations without a test gained", "disposal": "revert"}
    return [*done, ("stop.decided", stop), ("run.finished", {"code": "STOP_NO_PROGRESS", "exit": 10})]


def write(
    home: Path, *, run_id: str = RUN_ID, what: list[Step] | None = None, contract: dict[str, Any] | None = None
) -> Path:
    """Write a run's journal below `home`, signed with the state directory's own key; the run's directory.

    A `contract` is frozen beside it, and its hash stands in the journal.
    """
    run = home / "runs" / run_id
    signer = open_signer(home / "keys")
    accepted: dict[str, Any] = {"run_id": run_id, "journal_key": str(signer.key)}
    if contract is not None:
        run.mkdir(mode=0o700, parents=True)
        (run / CONTRACT).write_bytes(canonical(contract))
        accepted["contract_sha256"] = digest(contract)
    with Journal.open(run / JOURNAL, at_ms=AT_MS, signer=signer) as journal:
        journal.append("run.accepted", accepted, AT_MS)
        for number, (kind, data) in enumerate(steps() if what is None else what, 1):
            journal.append(kind, data, AT_MS + number * 1_000)
    return run


def faults(run: Path, also: tuple[str, ...] = ()) -> list[str]:
    """Which of the verifier's checks of the journal do not hold, with its words; [] for a sound one."""
    made = verify_run(run).checks
    asked = (*CHECKS, *also)
    found = [f"{check.name}: {check.detail}" for check in made if check.name in asked and not check.ok]
    named = {check.name for check in made}
    return found or [f"{name} was not checked" for name in asked if name not in named]


def believed(run: Path) -> list[str]:
    """What a reader without a chain complains of: lines that are no JSON; [] means that it believes all of it."""
    complaints = []
    for number, line in enumerate((run / JOURNAL).read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            complaints.append(f"line {number}: {error}")
            continue
        if not isinstance(record, dict) or not {"kind", "data"} <= set(record):
            complaints.append(f"line {number}: no record")
    return complaints


def records(run: Path) -> list[dict[str, Any]]:
    """The lines as plain JSON: what a forger works with."""
    return [json.loads(line) for line in (run / JOURNAL).read_bytes().splitlines()]


def put(run: Path, lines: list[bytes]) -> None:
    """Replace the file's lines."""
    (run / JOURNAL).write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))


def lines(run: Path) -> list[bytes]:
    """The file's lines."""
    return (run / JOURNAL).read_bytes().splitlines()


def rewritten(run: Path, what: list[Step], signer: Signer | None = None) -> None:
    """A whole new journal, sound in itself, its checkpoints signed by `signer` or left as they were."""
    old = [record["data"] for record in records(run) if record["kind"] == "journal.checkpoint"]
    tree, previous, made = Tree(), chain.GENESIS, []
    for seq, (kind, data) in enumerate(what):
        told = data
        if kind == "journal.checkpoint":
            point = Checkpoint(f"{ORIGIN}{run.name}", seq, tree.root())
            note = signer.sign(str(point)) if signer else old[-1]["note"]
            told = {"size": seq, "root": tree.root().hex(), "note": note}
        record, line = chain.encode(seq, AT_MS + seq * 500, kind, told, previous)
        previous = record.hash
        tree.append(bytes.fromhex(record.hash))
        made.append(line)
    put(run, made)


def copy(run: Path, to: Path) -> None:
    """Keep the journal as it is now, to be put back later."""
    shutil.copyfile(run / JOURNAL, to)


def anchors(run: Path) -> Path:
    """The file in which this run's heads are kept."""
    place = anchor.beside(run)
    assert place is not None
    return place
