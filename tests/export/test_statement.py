"""Statements in envelopes: an independent implementation opens them, ours does, and nobody opens a forged one."""

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

import evidence
import exported_run
import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from referencing import Registry, Resource
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # exported, but not declared so

from inbounds.export import dsse, statement
from inbounds.export.statement import Facts
from inbounds.journal.signing import Signer

SCHEMAS = {
    name: json.loads(resources.files("inbounds.export").joinpath(f"schemas/{name}.schema.json").read_text())
    for name in ("run", "review", "promotion", "bundle", "test-result")
}
MANIFEST = json.loads(resources.files("inbounds.journal").joinpath("manifest.schema.json").read_text())
REGISTRY = Registry().with_resources(
    [(schema["$id"], Resource.from_contents(schema)) for schema in (*SCHEMAS.values(), MANIFEST)]
)


def all_of(facts: Facts) -> dict[str, dict[str, Any]]:
    found = {
        "run": statement.run(facts),
        "test-result": statement.tests(facts),
        "review": statement.review(facts),
        "promotion": statement.promotion(facts),
        "bundle": statement.bundle(
            {"journal.jsonl": evidence.SHA}, {"format": "inbounds-bundle/1", "run_id": "x", "state": "y"}
        ),
    }
    made = {name: one for name, one in found.items() if one is not None}
    assert made.keys() == found.keys()
    return made


def independent(signer: Signer) -> SSlibKey:
    return SSlibKey(signer.name, "ed25519", "ed25519", {"public": signer.key.public.hex()})


def test_an_independent_implementation_verifies_every_envelope(facts: Facts, signer: Signer) -> None:
    for made in all_of(facts).values():
        raw = dsse.sealed(made, signer)
        envelope = Envelope.from_dict(json.loads(raw))
        assert envelope.pae() == dsse.pae(dsse.PAYLOAD_TYPE, base64.b64decode(json.loads(raw)["payload"]))
        assert signer.name in envelope.verify([independent(signer)], 1)
        assert json.loads(envelope.payload) == made == dsse.opened(raw, signer.key.public)


@pytest.mark.parametrize("forge", ["payload", "type", "signature", "key", "empty"])
def test_a_forged_envelope_is_opened_by_neither(facts: Facts, signer: Signer, forge: str) -> None:
    value = json.loads(dsse.sealed(statement.run(facts), signer))
    key = signer
    match forge:
        case "payload":
            told = json.loads(base64.b64decode(value["payload"]))
            told["predicate"]["cost"]["spent_micro_usd"] = 1
            value["payload"] = base64.b64encode(json.dumps(told).encode()).decode()
        case "type":
            value["payloadType"] = "application/vnd.other+json"
        case "signature":
            raw = bytearray(base64.b64decode(value["signatures"][0]["sig"]))
            raw[5] ^= 1
            value["signatures"][0]["sig"] = base64.b64encode(raw).decode()
        case "key":
            key = Signer(b"\7" * 32)
        case _:
            value["signatures"] = []
    with pytest.raises(dsse.EnvelopeError):
        dsse.opened(json.dumps(value).encode(), key.key.public)
    with pytest.raises(VerificationError):
        Envelope.from_dict(value).verify([independent(key)], 1)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff", b'{"payloadType":1,"payload":2,"signatures":3}', b"[" * 9_999]
)
def test_what_is_no_envelope_is_named(raw: bytes, signer: Signer) -> None:
    with pytest.raises(dsse.EnvelopeError):
        dsse.opened(raw, signer.key.public)


def test_predicates_have_the_published_shape(facts: Facts) -> None:
    for name, made in all_of(facts).items():
        assert made["_type"] == "https://in-toto.io/Statement/v1"
        assert made["subject"]
        validator = jsonschema.Draft202012Validator(SCHEMAS[name], registry=REGISTRY)
        validator.check_schema(SCHEMAS[name])
        assert not list(validator.iter_errors(made["predicate"])), name
        assert list(validator.iter_errors({**made["predicate"], "more": 1})) or name == "test-result"
        short = dict(made["predicate"])
        short.pop(min(short))
        assert list(validator.iter_errors(short)), name


def test_subjects_are_what_others_can_hash(facts: Facts) -> None:
    made = all_of(facts)
    assert made["run"]["subject"] == [
        {"name": "result", "digest": {"gitCommit": evidence.COMMIT}},
        {"name": "result tree", "digest": {"gitTree": evidence.TREE}},
        {
            "name": "journal.jsonl",
            "digest": {"sha256": facts.journal_sha256, "inboundsJournalHead": facts.records[-1].hash},
        },
    ]
    assert made["test-result"]["subject"] == [{"name": "tree judged", "digest": {"gitTree": evidence.TREE}}]
    assert made["promotion"]["subject"][0]["digest"] == {"gitCommit": evidence.COMMIT}


@pytest.mark.req("H15")
def test_the_agents_words_are_in_no_statement(facts: Facts) -> None:
    said = facts.manifest["agent_claims"]["said"][0]["text"]
    assert said
    assert not any(said in json.dumps(made) or "agent_claims" in json.dumps(made) for made in all_of(facts).values())


def test_results_of_tests_are_those_of_the_last_verdict(tmp_path: Path) -> None:
    passed = statement.tests(exported_run.facts_of(evidence.write(tmp_path / "a", exported_run.steps())))
    assert passed
    assert passed["predicate"]["result"] == "PASSED"
    assert passed["predicate"]["passedTests"] == exported_run.TESTS["acceptance_passing"]
    steps = exported_run.steps()
    last = [data for kind, data in steps if kind == "verdict" and data["judge"] == "tests"][-1]
    last["outcome"] = "FAIL"
    failed = statement.tests(exported_run.facts_of(evidence.write(tmp_path / "b", steps)))
    assert failed
    assert failed["predicate"]["result"] == "FAILED"
    last["outcome"] = "INCONCLUSIVE"
    assert statement.tests(exported_run.facts_of(evidence.write(tmp_path / "c", steps))) is None


def test_what_was_rolled_back_stands_nowhere(tmp_path: Path) -> None:
    steps = exported_run.steps()
    rolled = {"target": "development", "outcome": "rolled_back", "commit": evidence.BASE, "old": "", "reasons": []}
    made = statement.promotion(exported_run.facts_of(evidence.write(tmp_path, [*steps, ("promotion.decided", rolled)])))
    assert made
    assert made["predicate"]["standing"] == {}
    assert [one["name"] for one in made["subject"]] == ["journal.jsonl"]


@pytest.mark.parametrize("length", [0, 1, 5, 12])
def test_a_run_cut_short_has_only_the_statements_that_it_can_have(tmp_path: Path, length: int) -> None:
    facts = exported_run.facts_of(evidence.write(tmp_path, exported_run.steps()[:length]))
    validator = jsonschema.Draft202012Validator(SCHEMAS["run"], registry=REGISTRY)
    assert not list(validator.iter_errors(statement.run(facts)["predicate"]))
    assert statement.tests(facts) is None
    assert statement.promotion(facts) is None


def test_what_no_record_names_is_no_subject(tmp_path: Path) -> None:
    steps = exported_run.steps()
    for kind, data in steps:
        if kind in ("commit.made", "snapshot.taken"):
            data.pop("tree")
    facts = exported_run.facts_of(evidence.write(tmp_path, steps))
    assert [one["name"] for one in statement.run(facts)["subject"]] == ["result", "journal.jsonl"]
    assert statement.tests(facts) is None
    assert statement.review(facts) is None
