"""The manifest: all of section H, from the journal alone, and honest about what nobody saw."""

import copy
import json
from importlib import resources
from pathlib import Path
from typing import Any

import evidence
import jsonschema
import pytest

from inbounds.journal import manifest

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
    one["journal"].pop("hash"), two["journal"].pop("hash")
    assert one == two


def test_the_published_schema_holds_and_is_strict(run: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    made = json.loads((run / "manifest.json").read_bytes())
    assert not list(validator.iter_errors(made))
    for change in ({"files_read": None}, {"cost": {}}, {"extra": 1}, {"format": "inbounds-manifest/2"}):
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
