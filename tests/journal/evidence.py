"""A finished run's directory, written through the real journal writer, for tests to read and to tamper with.

Signed as a real one is: checkpoints by the state directory's key, statements by an operator's SSH key. Knows the
journal's vocabulary; runs no agent.
"""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inbounds.contracts.canonical import canonical, digest
from inbounds.journal import chain, manifest
from inbounds.journal.chain import Record
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal

# Data of a step, or what makes it from the records that stand before.
Data: TypeAlias = "dict[str, Any] | Callable[[list[Record]], dict[str, Any]]"

RUN_ID = "20261120-231500-a1b2c3"
START = 1_795_216_500_000
SHA = "5f" * 32
TREE, COMMIT, BASE = "1a" * 20, "2b" * 20, "3c" * 20

JOURNAL_SECRET = b"a journal's key, in tests alone!"
SIGNER = Signer(JOURNAL_SECRET)


class Person:
    """Somebody with an SSH key, whose signatures are made as ssh-keygen -Y sign makes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self._blob = _wire(b"ssh-ed25519") + _wire(self._private.public_key().public_bytes_raw())
        self.public = f"ssh-ed25519 {base64.b64encode(self._blob).decode()}"

    def sign(self, statement: dict[str, Any], namespace: str = "inbounds-approval") -> str:
        hashed = hashlib.sha512(canonical(statement)).digest()
        common = _wire(namespace.encode()) + _wire(b"") + _wire(b"sha512")
        raw = _wire(b"ssh-ed25519") + _wire(self._private.sign(b"SSHSIG" + common + _wire(hashed)))
        text = base64.b64encode(b"SSHSIG\0\0\0\1" + _wire(self._blob) + common + _wire(raw)).decode()
        lines = [text[n : n + 70] for n in range(0, len(text), 70)]
        return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def _wire(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


DANA, STRANGER = Person("Dana Oduya"), Person("Mallory")
PLAN = {"plan_id": "PLAN-12", "goal": "Round invoices half up, as the tax office wants it"}
STATEMENT: dict[str, Any] = {
    "what": "start",
    "thread": "billing",
    "plan_sha256": digest(PLAN),
    "requirements": {"FR-12": SHA},
    "policy_sha256": SHA,
    "config_sha256": SHA,
}
CONTRACT: dict[str, Any] = {
    "version": 1,
    "run_id": RUN_ID,
    "thread": "billing",
    "goal": "Round invoices half up, as the tax office wants it",
    "agent": "claude",
    "model": "claude-sonnet-4-5",
    "branch": "agent/billing/round-half-up",
    "profile": "standard",
    "targets": ["billing/src/**", "billing/tests/test_rounding.py"],
    "protected": ["billing/.inbounds"],
    "interfaces": ["shared/money.py"],
    "acceptance": [{"test": "billing/tests/test_round.py::test_half_up", "path": "billing/tests/test_round.py"}],
    "requirements": [
        {
            "id": "FR-12",
            "owner": "Dana Oduya",
            "objective": "Invoice totals are rounded half up to the cent.",
            "acceptance": [
                {
                    "criterion": "1.005 becomes 1.01",
                    "test": "billing/tests/test_round.py::test_half_up",
                }
            ],
            "non_goals": ["Changing stored amounts"],
        }
    ],
    "limits": {"wall_clock_ms": 1_800_000, "iterations": 10, "budget_micro_usd": 5_000_000, "tool_calls": 1000},
    "operator": DANA.name,
    "promote_to": "development",
    "plan": PLAN,
    "plan_sha256": digest(PLAN),
    "policy_sha256": SHA,
    "config_sha256": SHA,
    "requirements_sha256": {"FR-12": SHA},
    "conduct": {"resume_by": [], "resume_approvals": 1},
    "operator_keys": {DANA.name: DANA.public},
    "statement": STATEMENT,
    "signature": DANA.sign(STATEMENT, "inbounds-plan"),
}
RADIUS = {
    "can_write": ["billing/src/** (kept only if judged in scope)", "billing/tests/test_rounding.py"],
    "cannot_write": ["billing/.inbounds (read-only)", "billing/tests/test_round.py (restored before judgement)"],
    "can_read": ["thread billing", "interface shared/money.py", "system programs and libraries, the dependency layer"],
    "cannot_read": ["the rest of the repository", "home directories", "credentials", "other processes"],
    "network": ["none but the metered gateway (127.0.0.1:8100 inside), which asks api.anthropic.com"],
    "can_execute": ["system programs, the interpreter, the dependency layer; nothing that it wrote"],
    "money_at_most": "$5.00",
    "time_at_most": "30m",
    "resources_at_most": "256 processes, 2048 MiB memory, 2048 MiB disk",
    "lands_on": "agent/billing/round-half-up in a store outside the repository",
    "undo": "inbounds rollback RUN for what landed, inbounds discard RUN for what did not",
}
ENFORCED = {
    "user namespace": "enforced",
    "network namespace": "enforced",
    "landlock": "enforced",
    "seccomp": "enforced",
    "cgroup memory": "absent: no delegated cgroup",
    "files read": "not observed",
}


def accepted() -> dict[str, Any]:
    return {
        "run_id": RUN_ID,
        "plan_id": "PLAN-12",
        "plan_sha256": SHA,
        "requirements": [{"id": "FR-12", "sha256": SHA, "owner": "Dana Oduya"}],
        "thread": "billing",
        "policy_sha256": SHA,
        "contract_sha256": digest(CONTRACT),
        "blast_radius_sha256": digest(RADIUS),
        "operator": "Dana Oduya",
        "agent": {"name": "claude", "version": "2.1.40", "sha256": SHA},
        "model": "claude-sonnet-4-5",
        "base_commit": BASE,
        "base_tree": "4d" * 20,
        "store": "/srv/store.git",
        "branch": "agent/billing/round-half-up",
        "mode": "rootless",
        "limits": CONTRACT["limits"],
        "budget_micro_usd": 5_000_000,
        "versions": {"inbounds": "0.1.0", "bubblewrap": "0.11.0", "kernel": "6.12.0"},
        "profile": "standard",
        "required_judges": ["scope", "tests"],
        "journal_key": str(SIGNER.key),
    }


def usage(spent: int, n: int, ms: int = 2_400) -> dict[str, Any]:
    return {
        "request": f"req-{n}",
        "format": "anthropic.messages",
        "model": "claude-sonnet-4-5",
        "status": 200,
        "input_tokens": 9_200 + n,
        "output_tokens": 410,
        "cache_read_tokens": 30_000,
        "cache_write_tokens": 1_100,
        "cost_micro_usd": 41_000,
        "spent_micro_usd": spent,
        "reserved_micro_usd": 0,
        "tool_calls": 2,
        "host": "api.anthropic.com",
        "bytes_out": 116_000,
        "bytes_in": 5_300,
        "ms": ms,
    }


def iteration(n: int, before: int, after: int, spent: int) -> list[tuple[str, dict[str, Any]]]:
    gained = [f"billing/tests/test_round.py::test_case_{i}" for i in range(after, before)]
    return [
        ("iteration.started", {"n": n}),
        ("jail.started", {"role": "coder", "n": n, "enforcement": ENFORCED}),
        ("model.usage", usage(spent - 41_000, 2 * n)),
        ("tool.called", {"tool": "run_tests", "outcome": "ok", "ms": 900}),
        ("model.usage", usage(spent, 2 * n + 1)),
        ("agent.said", {"n": n, "text": f"Iteration {n}: all tests pass and everything is perfect!"}),
        ("jail.exited", {"role": "coder", "n": n, "reason": "exited", "exit_code": 0, "signal": 0, "ms": 48_000}),
        (
            "snapshot.taken",
            {
                "n": n,
                "tree": TREE,
                "changes": [
                    {"status": "M", "path": "billing/src/rounding.py", "old_mode": "100644", "new_mode": "100644"},
                    {"status": "A", "path": "billing/tests/test_rounding.py", "old_mode": "", "new_mode": "100644"},
                ],
                "changed": 2,
                "complete": True,
                "why": "",
                "files": 41,
                "bytes": 90_211,
            },
        ),
        ("verdict", {"n": n, "judge": "scope", "outcome": "PASS", "summary": "2 files, all declared", "findings": []}),
        (
            "verdict",
            {
                "n": n,
                "judge": "tests",
                "outcome": "PASS" if after == 0 else "FAIL",
                "summary": f"{after} of 14 tests fail",
                "findings": [],
                "facts": {"tests": 14},
            },
        ),
        (
            "iteration.finished",
            {
                "n": n,
                "failing_before": before,
                "failing_after": after,
                "newly_passing": gained,
                "progress": after < before,
                "score": before - after,
            },
        ),
        ("commit.made", {"n": n, "commit": COMMIT, "tree": TREE, "branch": "agent/billing/round-half-up"}),
    ]


def stop(code: str, why: str, disposal: str) -> list[tuple[str, dict[str, Any]]]:
    last = {"keep": "kept", "revert": "reverted", "quarantine": "quarantined"}[disposal]
    return [
        ("stop.step", {"step": "lease_closed", "ok": True, "detail": ""}),
        ("stop.step", {"step": "frozen", "ok": True, "detail": ""}),
        ("stop.decided", {"code": code, "why": why, "disposal": disposal}),
        ("stop.step", {"step": "persisted", "ok": True, "detail": "diff.patch, 1 snapshot"}),
        ("stop.step", {"step": "killed", "ok": True, "detail": "no process left"}),
        ("stop.step", {"step": last, "ok": True, "detail": ""}),
    ]


def good_run() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("run.accepted", accepted()),
        (
            "preflight.finished",
            {
                "ok": True,
                "reasons": [],
                "baseline": {"failing": [f"t::{i}" for i in range(5)], "passing": 9, "known_failing": []},
                "enforcement": ENFORCED,
                "level": 1,
            },
        ),
        ("gateway.started", {"pid": 4242}),
        ("broker.started", {"pid": 4243}),
        *iteration(1, 5, 3, 82_000),
        ("denial", {"kind": "name", "detail": "pypi.org", "sensitive": False}),
        ("denial", {"kind": "name", "detail": "pypi.org", "sensitive": False}),
        ("model.refused", {"reason": "unknown model", "status": 403, "model": "claude-9", "detail": ""}),
        *iteration(2, 3, 3, 164_000),
        *iteration(3, 3, 0, 246_000),
        *stop("DONE", "every acceptance test passes and no judge objects", "keep"),
        (
            "promotion.decided",
            {"target": "development", "outcome": "promoted", "commit": COMMIT, "old": BASE, "reasons": []},
        ),
        ("notice.sent", {"channel": "desktop", "ok": False, "detail": "absent: no notifier"}),
        ("run.finished", {"code": "DONE", "exit": 0}),
    ]


def approved() -> dict[str, Any]:
    """Dana approves this run's commit."""
    statement = {"what": "approve", "run_id": RUN_ID, "plan_id": "PLAN-12", "tree": TREE, "commit": COMMIT, "note": ""}
    return {"kind": "approve", "operator": DANA.name, "statement": statement, "signature": DANA.sign(statement)}


def reauthorized(seen: list[Record], *, by: Person = DANA, **changed: Any) -> dict[str, Any]:
    """Dana lets the run go on after the last stop; `changed` are fields of her statement that say something else."""
    stop = next(record for record in reversed(seen) if record.kind == "stop.decided")
    statement = {
        "what": "resume",
        "run_id": RUN_ID,
        "stop_code": stop.data["code"],
        "why": stop.data["why"],
        "stop_hash": stop.hash,
        "commit": COMMIT,
        "branch": CONTRACT["branch"],
        "store": "/srv/store.git",
        "note": "",
        **changed,
    }
    return {
        "stop_hash": statement["stop_hash"],
        "stop_code": statement["stop_code"],
        "operator": by.name,
        "operators": [by.name],
        "statement": statement,
        "signature": by.sign(statement),
    }


def amended(version: int = 2, *, by: Person = DANA, **changed: Any) -> dict[str, Any]:
    """Dana grants more iterations."""
    limits = {**CONTRACT["limits"], "iterations": 20}
    statement = {
        "what": "amend",
        "run_id": RUN_ID,
        "contract_sha256": digest(CONTRACT),
        "version": version,
        "limits": limits,
        "note": "",
        **changed,
    }
    signature = by.sign(statement)
    return {
        "version": version, "operator": by.name, "limits": limits, "statement": statement, "signature": signature
    }  # fmt: skip


def two_legs() -> list[tuple[str, Data]]:
    """A run that ran out of iterations, was let go on with more of them, lost its supervisor, and came to its end."""
    first = good_run()
    n = next(n for n, (kind, _) in enumerate(first) if kind == "stop.step")
    return [
        *first[:n],
        *stop("STOP_ITERATIONS_EXCEEDED", "3 iterations are allowed", "revert"),
        ("run.finished", {"code": "STOP_ITERATIONS_EXCEEDED", "exit": 10}),
        ("contract.amended", amended()),
        ("run.reauthorized", reauthorized),
        ("gateway.started", {"pid": 5242}),
        ("broker.started", {"pid": 5243}),
        ("run.reopened", {"ok": True, "reasons": []}),
        *iteration(4, 3, 1, 328_000),
        ("journal.recovered", {"holder_pid": 7, "torn": {}}),
        ("run.recovered", {"spent_micro_usd": 328_000, "tokens": 90_000, "tool_calls": 16}),
        *iteration(5, 1, 0, 410_000),
        *stop("DONE", "every acceptance test passes and no judge objects", "keep"),
        ("run.finished", {"code": "DONE", "exit": 0}),
        ("operator.decision", approved()),
        ("promotion.decided", {"target": "development", "outcome": "promoted", "commit": COMMIT, "old": BASE}),
    ]


def write(home: Path, steps: "list[tuple[str, Any]]", *, run_id: str = RUN_ID, signer: Signer | None = SIGNER) -> Path:
    """Write a run directory below `home`, as the supervisor leaves it."""
    run_dir = home / "runs" / run_id
    keep_key(home)
    seen: list[Record] = []
    with Journal.open(run_dir / "journal.jsonl", at_ms=START, signer=signer) as journal:
        for number, (kind, data) in enumerate(steps, 1):
            made = data(seen) if callable(data) else data
            seen.append(journal.append(kind, made, START + number * 7_000))
    (run_dir / "contract.json").write_bytes(canonical(CONTRACT))
    (run_dir / "blast_radius.json").write_bytes(canonical(RADIUS))
    close(run_dir)
    return run_dir


def keep_key(home: Path) -> None:
    """The state directory's key, where it has none yet."""
    keys = home / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (keys / "journal.key").exists():
        (keys / "journal.key").touch(0o600)
        (keys / "journal.key").write_bytes(JOURNAL_SECRET)
        (keys / "journal.pub").write_text(f"{SIGNER.key}\n")


def close(run_dir: Path) -> None:
    """Write the manifest that the journal gives now."""
    (run_dir / "manifest.json").write_bytes(manifest.encode(manifest.derive(read(run_dir))))


def read(run_dir: Path) -> list[Record]:
    return list(chain.records(run_dir / "journal.jsonl"))


def rechained(run_dir: Path, records: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Write (at_ms, kind, data) as a whole new chain that is sound in itself: a forger with all the time he needs."""
    prev, lines = chain.GENESIS, []
    for seq, (at_ms, kind, data) in enumerate(records):
        record, line = chain.encode(seq, at_ms, kind, data, prev)
        prev = record.hash
        lines.append(line)
    (run_dir / "journal.jsonl").write_bytes(b"".join(lines))
