"""The bound contract: its bytes are canonical, read back to the same, and every change changes its hash."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts import blast, bound
from inbounds.contracts.bound import Contract, PinnedTest, decode, document_sha256
from inbounds.contracts.canonical import canonical, digest
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.documents import LimitsText, Notify, Policy
from inbounds.contracts.draft import draft
from inbounds.contracts.limits import DEFAULT
from inbounds.contracts.wording import remarks

FLAGS: dict[str, Any] = {
    "goal": "Tax is rounded half up",
    "accept": [("billing/tests/test_tax.py::test_half_up", "a" * 64)],
    "owner": "ana",
    "thread": "billing",
    "targets": ["billing/tax.py"],
    "limits": LimitsText(budget_usd="5", wall_clock="30m"),
    "agent": "reference",
    "model": "",
}


def contract(**changes: Any) -> Contract:
    requirement, plan = draft(**FLAGS)
    values: dict[str, Any] = dict.fromkeys(
        (
            "run_id",
            "repository",
            "base_commit",
            "base_tree",
            "store",
            "branch",
            "layer",
            "agent",
            "agent_version",
            "settings_sha256",
        ),
        "x",
    )
    values |= dict.fromkeys(("agent_sha256", "model", "profile", "time_zone", "operator", "signature", "goal"), "y")
    values |= dict.fromkeys(
        ("protected", "interfaces", "known_failing", "test_command", "test_paths", "test_pythonpath"), ("p",)
    )
    values |= {
        "version": 1,
        "thread": "billing",
        "plan": plan,
        "plan_sha256": document_sha256(plan),
        "requirements": (requirement,),
        "requirements_sha256": {requirement.id: document_sha256(requirement)},
        "policy_sha256": "b" * 64,
        "config_sha256": "c" * 64,
        "limits": DEFAULT.as_json(),
        "conduct": Conduct().as_json(),
        "sources": {"tokens": "built-in default"},
        "targets": ("billing/tax.py",),
        "acceptance": (PinnedTest("t::x", "t", "d" * 40, "e" * 64),),
        "test_runner": "pytest",
        "test_timeout_ms": 1,
        "layer_pythonpath": (),
        "level": 1,
        "require": (),
        "promote_to": "development",
        "promote_auto": True,
        "notify": Notify(),
        "month_micro_usd": 0,
        "thread_month_micro_usd": 0,
        "operator_keys": {"ana": "ssh-ed25519 AAAA"},
        "statement": {"what": "start"},
    }
    return Contract(**{**values, **changes})


def test_it_reads_back_to_the_same_with_the_same_hash() -> None:
    made = contract()
    again = decode(made.encode())
    assert again == made
    assert again.sha256() == made.sha256() == digest(msgspec.json.decode(made.encode()))
    assert again.encode() == made.encode() == canonical(msgspec.json.decode(made.encode()))
    assert again.numbers() == DEFAULT
    assert again.conducted() == Conduct()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(goal: str) -> None:
    made = contract(goal=goal)
    assert decode(made.encode()).goal == goal
    assert decode(made.encode()).sha256() == made.sha256()


@pytest.mark.req("E8")
def test_every_change_changes_its_hash() -> None:
    base = contract()
    changed = [contract(limits={**DEFAULT.as_json(), "tokens": 1}), contract(level=2), contract(targets=("**",))]
    changed += [contract(promote_auto=False), contract(signature=""), contract(acceptance=())]
    assert len({base.sha256(), *(one.sha256() for one in changed)}) == len(changed) + 1


@pytest.mark.parametrize("change", [b'"level":1,', b'"goal":"y"', b'"version":1}'])
def test_what_is_no_contract_is_refused(change: bytes) -> None:
    raw = contract().encode()
    assert change in raw
    for broken in (
        raw.replace(change, b'"levle":1' + change[-1:], 1),
        raw[:-1],
        raw.replace(b'"level":1', b'"level":1.0', 1),
    ):
        with pytest.raises(msgspec.DecodeError):
            decode(broken)


def test_layout_is_no_part_of_a_documents_hash() -> None:
    policy = Policy(version=1, operators=())
    spelled = Policy(version=1, operators=(), profile="standard", models=())
    assert document_sha256(policy) == document_sha256(spelled)
    assert document_sha256(policy) != document_sha256(Policy(version=1, operators=(), profile="strict"))


def test_what_a_person_signs_covers_every_document() -> None:
    parts: dict[str, Any] = {"plan": "1", "requirements": {"FR-1": "2"}, "policy": "3", "config": "4", "thread": "5"}
    signed = {digest(bound.statement(**parts))}
    for key in parts:
        other = {"FR-1": "x"} if key == "requirements" else "x"
        signed.add(digest(bound.statement(**{**parts, key: other})))
    assert len(signed) == len(parts) + 1


# -- drafts


def test_the_same_flags_give_the_same_bytes_and_hashes() -> None:
    first, second = draft(**FLAGS), draft(**{**FLAGS, "accept": list(FLAGS["accept"])})
    assert first == second
    assert [document_sha256(one) for one in first] == [document_sha256(one) for one in second]


@pytest.mark.parametrize(
    ("key", "value"),
    [("goal", "another"), ("accept", [("t::x", "b" * 64)]), ("thread", "shipping"), ("targets", ["billing/**"])],
)
def test_another_wish_has_another_name(key: str, value: object) -> None:
    requirement, plan = draft(**FLAGS)
    other, other_plan = draft(**{**FLAGS, key: value})
    assert (requirement.id, plan.plan_id) != (other.id, other_plan.plan_id)


def test_a_draft_is_a_valid_document() -> None:
    for document in draft(**FLAGS):
        assert msgspec.convert(msgspec.to_builtins(document), type(document), strict=True) == document


def test_without_targets_the_thread_is_the_target() -> None:
    assert draft(**{**FLAGS, "targets": []})[1].targets == ("billing/**",)
    assert draft(**{**FLAGS, "targets": [], "thread": "."})[1].targets == ("**",)


# -- wording


@pytest.mark.req("A8", "A9")
@pytest.mark.parametrize("word", ["improve", "Clean up", "user-friendly", "faster", "etc", "should work", "robust"])
def test_vague_words_are_reported(word: str) -> None:
    requirement, _ = draft(**{**FLAGS, "goal": f"{word} the invoices"})
    found = [remark for remark in remarks(requirement) if remark.field == "objective"]
    assert [remark.word.lower() for remark in found] == [word.lower()]
    assert found[0].why


def test_precise_words_are_not() -> None:
    requirement, _ = draft(**FLAGS)
    assert remarks(requirement) == ()


@pytest.mark.req("A8")
def test_no_criterion_and_no_time_are_remarks() -> None:
    requirement, _ = draft(**{**FLAGS, "accept": [], "limits": LimitsText()})
    assert {remark.field for remark in remarks(requirement)} == {"acceptance", "runtime_ceiling"}


# -- blast radius


@pytest.mark.req("Q1")
def test_the_blast_radius_states_every_bound_and_has_a_hash() -> None:
    stated = blast.radius(contract(), ("api.example.com",))
    digest(stated)
    text = str(stated)
    for expected in ("billing/tax.py", "api.example.com", "$5.00", "1h", "512 processes", "4096 MiB memory"):
        assert expected in text
    tight = contract(limits=replace(DEFAULT, budget_micro_usd=1, wall_clock_ms=61_001).as_json())
    assert blast.radius(tight, ())["money_at_most"] == "$0.000001"
    assert blast.radius(tight, ())["time_at_most"] == "1m1s1ms"
    assert blast.radius(contract(), ()) != blast.radius(tight, ())
