"""The journal's sample run as the exporter sees it: what the tests judge said in full, an approval, its facts."""

import hashlib
from pathlib import Path
from typing import Any

import evidence

from inbounds.export.statement import Facts
from inbounds.journal import manifest

TESTS = {
    "failing": [],
    "acceptance_passing": ["billing/tests/test_round.py::test_half_up"],
    "known_failing": ["billing/tests/test_old.py::test_x"],
    "passing": 14,
    "tests": 15,
    "cut": [],
}
APPROVAL = {"kind": "approve", "operator": "dana@example.org", "statement": {"tree": evidence.TREE}, "signature": "x"}


def steps() -> list[tuple[str, dict[str, Any]]]:
    made = evidence.good_run()
    for kind, data in made:
        if kind == "verdict" and data["judge"] == "tests" and data["outcome"] == "PASS":
            data["facts"] = TESTS
    return [*made, ("operator.decision", APPROVAL)]


def facts_of(run_dir: Path) -> Facts:
    records = evidence.read(run_dir)
    derived = manifest.derive(records)
    journal = hashlib.sha256((run_dir / "journal.jsonl").read_bytes()).hexdigest()
    return Facts(records, derived, journal, hashlib.sha256(manifest.encode(derived)).hexdigest())
