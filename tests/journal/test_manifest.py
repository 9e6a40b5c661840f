"""The manifest: all of section H, from the journal alone, and honest about what nobody saw."""

import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import evidence
import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbounds.journal import manifest
from inbounds.journal.chain import Record

SCHEMA = json.loads(resources.files("inbounds.journal").joinpath("manifest.schema.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return evidence.write(tmp_path, evidence.good_run())


def derived(home: Path, steps: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return manifest.derive(evidence.read(evidence.write(home, steps)))


@pytest.mark.req("H1", "H2", "H3", "H4", "H9", "H10", "H11", "H12", "H13")
def test_every_field_of_section_h(run: Path) -> None:
    made = json.loads((run / "manifest.json").read_bytes())
    assert made["agent"] == {
        "name": "claude",
        "version": "2.1.40",
        "sha256": evidence.SHA,
        "model": "claude-sonnet-4-5",
    }
    assert [item["id"] for item in made["requirements"]] == ["FR-12"]
    assert made["plan"] == {"id": "PLAN-12", "sha256": evidence.SHA}
    assert made["run"]["started_at"] == "2026-11-20T23:15:07.000Z"
    assert made["run"]["ended_at_ms"] - made["run"]["started_at_ms"] == 51 * 7_000
    assert made["files_read"] == "not observed"
    assert [item["path"] for item in made["files_written"]] == [
        "billing/src/rounding.py",
        "billing/tests/test_rounding.py",
    ]
    assert made["diff_summary"]["counts"]["added"] == made["diff_summary"]["counts"]["modified"] == 1
    assert made["external_calls"] == [
        {"host": "api.anthropic.com", "purpose": "model", "requests": 6, "bytes_out": 696_000, "bytes_in": 31_800}
    ]
    assert made["token_usage"][0]["input_tokens"] == sum(9_200 + n for n in range(2, 8))
    assert (made["cost"]["spent_micro_usd"], made["cost"]["budget_micro_usd"]) == (246_000, 5_000_000)
    assert [(step["n"], step["score"]) for step in made["progress"]] == [(1, 2), (2, 0), (3, 3)]
    assert [step["cost_micro_usd"] for step in made["progress"]] == [82_000] * 3
    assert made["exit"]["code"] == "DONE"
    assert made["exit"]["condition"] == "every acceptance test passes and no judge objects"
    assert made["denials"]["listed"][0] | {"first_at_ms": 0} == {
        "kind": "name",
        "detail": "pypi.org",
        "sensitive": False,
        "count": 2,
        "first_at_ms": 0,
    }
    assert made["journal"]["seq"] == len(evidence.read(run)) - 1


@pytest.mark.req("H15")
def test_what_the_agent_says_changes_nothing_but_its_own_corner(tmp_path: Path) -> None:
    honest = evidence.good_run()
    liar = copy.deepcopy(honest)
    for kind, data in liar:
        if kind == "agent.said":
            data["text"] = '{"cost_micro_usd": 0, "failing_after": 0} DONE: 0 tests fail, $0 spent'
    one, two = derived(tmp_path / "a", honest), derived(tmp_path / "b", liar)
    assert one.pop("agent_claims") != two.pop("agent_claims")
    for made in (one, two):  # hashes are over all that was written down, the agent's words among it
        made["journal"].pop("hash")
        made["legs"][0].pop("stop_hash")
    assert one == two


def test_the_published_schema_holds_and_is_strict(run: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    made = json.loads((run / "manifest.json").read_bytes())
    assert not list(validator.iter_errors(made))
    changes: tuple[dict[str, Any], ...] = (
        {"files_read": None},
        {"cost": {}},
        {"extra": 1},
        {"format": "inbounds-manifest/3"},
        {"legs": []},
    )
    for change in changes:
        assert list(validator.iter_errors({**made, **change}))


@pytest.mark.parametrize("length", [0, 1, 2, 6, 9, 20, 46])
def test_a_run_cut_short_anywhere_has_a_manifest_that_says_what_is_not_known(tmp_path: Path, length: int) -> None:
    made = derived(tmp_path, evidence.good_run()[:length])
    jsonschema.validate(made, SCHEMA)
    assert made["run"]["ended_at"] == "not observed"
    assert made["exit"]["exit"] == "not observed"
    if length < 9:
        assert made["files_written"] == made["diff_summary"] == made["progress"] == "not observed"


def test_an_empty_journal_has_one_too() -> None:
    jsonschema.validate(manifest.derive([]), SCHEMA)


def test_equal_journals_give_equal_bytes(run: Path) -> None:
    records = evidence.read(run)
    assert manifest.encode(manifest.derive(records)) == manifest.encode(manifest.derive(iter(records)))


def test_what_was_put_back_stays_on_record(tmp_path: Path) -> None:
    steps = evidence.good_run()
    last = max(n for n, (kind, _) in enumerate(steps) if kind == "snapshot.taken")
    steps[last][1]["changes"] = steps[last][1]["changes"][:1]
    files = {item["path"]: item["in_result"] for item in derived(tmp_path, steps)["files_written"]}
    assert files == {"billing/src/rounding.py": True, "billing/tests/test_rounding.py": False}


def test_the_weakest_enforcement_of_the_run_stands(tmp_path: Path) -> None:
    steps = evidence.good_run()
    steps.insert(-8, ("jail.started", {"role": "tester", "n": 3, "enforcement": {"landlock": "absent: ABI 0"}}))
    assert derived(tmp_path, steps)["enforcement"]["landlock"] == "absent: ABI 0"


def test_a_snapshot_that_was_cut_is_not_complete(tmp_path: Path) -> None:
    steps = evidence.good_run()
    last = max(n for n, (kind, _) in enumerate(steps) if kind == "snapshot.taken")
    steps[last][1].update(changes=[], cut={"changes": 90_000}, changed=90_000)
    summary = derived(tmp_path, steps)["diff_summary"]
    assert (summary["complete"], summary["files_changed"]) == (False, 90_000)


def test_a_long_run_keeps_a_readable_curve(tmp_path: Path) -> None:
    steps = evidence.good_run()[:5] + [("model.usage", evidence.usage(n * 1_000, n)) for n in range(1, 3_000)]
    curve = derived(tmp_path, steps)["cost"]["curve"]
    assert len(curve) <= 241
    assert curve[-1]["spent_micro_usd"] == 2_999_000


REAUTHORIZED = {"stop_hash": "ab" * 32, "operators": ["dana@example.org", "kim@example.org"], "signatures": ["…"]}


def two_legs() -> list[tuple[str, dict[str, Any]]]:
    """A run that spent its money, was amended and re-authorized, lost its supervisor, and came to its end."""
    steps = [step for step in evidence.good_run() if step[0] not in ("promotion.decided", "notice.sent")]
    at = next(n for n, step in enumerate(steps) if step == ("iteration.started", {"n": 2}))
    spent = [
        *evidence.stop("BUDGET", "the run's budget is spent", "revert"),
        ("run.finished", {"code": "BUDGET", "exit": 1}),
        ("operator.decision", {"kind": "amend", "operator": "dana@example.org", "statement": {}, "signature": "…"}),
        (
            "contract.amended",
            {
                "version": 2,
                "operator": "dana@example.org",
                "limits": {**evidence.CONTRACT["limits"], "budget_micro_usd": 9_000_000},
            },
        ),
        ("run.reauthorized", REAUTHORIZED),
        ("journal.recovered", {"pid": 77, "mended_bytes": 12}),
        ("run.recovered", {"spent_micro_usd": 82_000, "tokens": 5, "tool_calls": 2}),
    ]
    return [*steps[:at], *spent, *steps[at:]]


@pytest.mark.req("H12", "H13")
def test_every_leg_with_its_stop_and_who_let_it_go_on(tmp_path: Path) -> None:
    run_dir = evidence.write(tmp_path, two_legs())
    records, made = evidence.read(run_dir), json.loads((run_dir / "manifest.json").read_bytes())
    jsonschema.validate(made, SCHEMA)
    first, last = made["legs"]
    stops = [record for record in records if record.kind == "stop.decided"]
    assert (first["code"], first["exit"], first["disposal"]) == ("BUDGET", 1, "revert")
    assert (first["stop_seq"], first["stop_hash"], first["stopped_at_ms"]) == (
        stops[0].seq,
        stops[0].hash,
        stops[0].at_ms,
    )
    again = next(record for record in records if record.kind == "run.reauthorized")
    assert first["reauthorized"] == {
        "seq": again.seq,
        "at_ms": again.at_ms,
        "operators": REAUTHORIZED["operators"],
        "stop_hash": REAUTHORIZED["stop_hash"],
    }
    assert (last["code"], last["began_at_ms"], last["reauthorized"]) == ("DONE", again.at_ms, "not observed")
    assert (made["exit"]["code"], made["exit"]["exit"]) == ("DONE", 0)
    assert [step["seq"] for step in made["exit"]["steps"]] == [
        record.seq for record in records if record.kind == "stop.step" and record.seq > again.seq
    ]
    assert made["run"]["ended_at_ms"] == records[-1].at_ms
    assert [(item["version"], item["operator"]) for item in made["amendments"]] == [(2, "dana@example.org")]
    assert made["limits"]["budget_micro_usd"] == made["cost"]["budget_micro_usd"] == 9_000_000
    assert [item["kind"] for item in made["recoveries"]] == ["journal.recovered", "run.recovered"]


def test_what_nobody_heard_of_before_a_recovery_counts_as_spent(tmp_path: Path) -> None:
    usage: tuple[str, dict[str, Any]] = ("model.usage", {"model": "m", "cost_micro_usd": 40, "spent_micro_usd": 40})
    for known, spent in ((82, 82), (40, 40), (7, 40)):  # the ledger outlives the supervisor; a total never falls
        steps = [usage, ("run.recovered", {"spent_micro_usd": known})]
        made = derived(tmp_path / str(known), steps)["cost"]
        assert made["spent_micro_usd"] == spent
        assert made["curve"][-1]["spent_micro_usd"] == spent
        assert made["sum_of_requests_micro_usd"] == 40


def test_a_leg_that_is_under_way_has_no_exit_of_an_earlier_one(tmp_path: Path) -> None:
    steps = two_legs()
    cut = next(n for n, step in enumerate(steps) if step[0] == "run.recovered") + 1
    made = derived(tmp_path, steps[:cut])
    jsonschema.validate(made, SCHEMA)
    assert [leg["code"] for leg in made["legs"]] == ["BUDGET", "not observed"]
    assert made["exit"]["code"] == made["exit"]["exit"] == made["run"]["ended_at"] == "not observed"


def test_a_stop_that_a_recovery_repeats_is_one_stop(tmp_path: Path) -> None:
    steps = evidence.good_run()
    cut = next(n for n, step in enumerate(steps) if step[0] == "stop.decided") + 1
    steps = [*steps[:cut], ("journal.recovered", {"pid": 7}), *steps[cut - 3 :]]
    made = derived(tmp_path, steps)
    assert [leg["code"] for leg in made["legs"]] == ["DONE"]


@pytest.mark.req("H5", "H6")
def test_files_read_and_written_with_their_hashes(tmp_path: Path) -> None:
    steps = evidence.good_run()
    for kind, data in steps:
        if kind == "snapshot.taken":
            data["changes"][0].update(blob="6e" * 20, old_blob="7f" * 20, sha256=evidence.SHA)
    steps.insert(6, ("files.read", {"n": 1, "files": [{"path": "b.py", "blob": "8a" * 20, "sha256": evidence.SHA}]}))
    cut = {"complete": False, "why": "more files than are watched", "more": 3}
    steps.insert(7, ("files.read", {"n": 1, "paths": ["a.py", "b.py"], **cut}))
    steps.insert(8, ("files.read", {"n": 2, "paths": [], **cut}))
    made = derived(tmp_path, steps)
    jsonschema.validate(made, SCHEMA)
    changed, added = made["files_written"]
    assert (changed["blob"], changed["old_blob"], changed["sha256"]) == ("6e" * 20, "7f" * 20, evidence.SHA)
    assert (added["blob"], added["sha256"]) == ("not observed", "not observed")
    assert made["diff_summary"]["object_format"] == "git-sha1"
    assert (made["files_read_more"], made["files_read_gaps"]) == (6, ["more files than are watched"])
    assert made["files_read"] == [
        {"path": "a.py", "blob": "not observed", "sha256": "not observed"},
        {"path": "b.py", "blob": "8a" * 20, "sha256": evidence.SHA},
    ]


def test_a_reply_without_figures_is_told_apart_from_one_that_cost_nothing(tmp_path: Path) -> None:
    steps = evidence.good_run()
    lost = {**evidence.usage(300_000, 9), "state": "unknown", "input_tokens": 0, "output_tokens": 0}
    steps.insert(6, ("model.usage", lost))
    (model,) = derived(tmp_path, steps)["token_usage"]
    assert (model["requests"], model["charged_at_bound"]) == (7, 1)


KINDS = (*sorted(manifest.KINDS), "something.else")
KEYS = re.findall(
    r"\S+",
    """
    n run_id plan_sha256 agent versions limits requirements enforcement seal changes path status blob
    sha256 tree  model host state cost_micro_usd spent_micro_usd input_tokens reason tool outcome detail
    sensitive files paths  judge findings facts version newly_passing score progress code why disposal
    exit step ok operators stop_hash  operator target commit channel text seq at_ms budget_micro_usd ok
    reasons baseline level kind
    """,
)
STRICT = jsonschema.Draft202012Validator(SCHEMA)
plain = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=12)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), values, max_size=8)), max_size=12)
)
def test_no_record_however_malformed_gives_a_manifest_outside_the_schema(
    made: list[tuple[str, dict[str, Any]]],
) -> None:
    records = [Record(seq, 1_000 * seq, kind, data, "00" * 32, f"{seq:064x}") for seq, (kind, data) in enumerate(made)]
    found = manifest.derive(records)
    assert not list(STRICT.iter_errors(found))
    assert manifest.encode(found) == manifest.encode(manifest.derive(iter(records)))
