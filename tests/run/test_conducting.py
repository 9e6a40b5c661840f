"""Policy's conduct section: concrete numbers, and errors that say what to mend; refusals that only wait are told once."""

from typing import Any

import msgspec
import pytest

from inbounds.contracts.conduct import DEFAULT
from inbounds.contracts.documents import Policy
from inbounds.contracts.errors import OperatorError
from inbounds.run.conducting import conduct
from inbounds.run.gate import Waiting

PEOPLE = [{"name": "ana", "key": "ssh-ed25519 AAAA"}, {"name": "ben", "key": "ssh-ed25519 BBBB"}]


def policy(**section: Any) -> Policy:
    return msgspec.convert({"version": 1, "operators": PEOPLE, "conduct": section}, Policy)


def test_a_silent_policy_conducts_by_the_defaults() -> None:
    assert conduct(msgspec.convert({"version": 1, "operators": PEOPLE}, Policy)) == DEFAULT


def test_every_word_of_the_section_has_its_number() -> None:
    made = conduct(
        policy(
            slow_down={"at_percent": 80, "interval": "3s", "cpu_percent": 25},
            escalation={"at_percent": 90, "wait": "2h"},
            snapshots={"every": "5m", "keep": 3},
            resume={"by": ["ben"], "approvals": 1},
            recovery="stop",
            quarantine=["STOP_BUDGET_EXCEEDED"],
            timestamp="https://tsa.example/",
            timestamp_ca="/etc/tsa.pem",
        )
    )
    assert (made.slow_at_percent, made.slow_interval_ms, made.slow_cpu_percent) == (80, 3_000, 25)
    assert (made.escalate_at_percent, made.escalate_wait_ms) == (90, 7_200_000)
    assert (made.snapshot_every_ms, made.snapshots_kept) == (300_000, 3)
    assert (made.resume_by, made.resume_approvals, made.incident_approvals) == (("ben",), 1, 1)
    assert (made.recovery, made.quarantine) == ("stop", ("STOP_BUDGET_EXCEEDED",))
    assert (made.timestamp_url, made.timestamp_ca) == ("https://tsa.example/", "/etc/tsa.pem")


def test_an_incident_never_takes_fewer_people_than_another_stop() -> None:
    assert conduct(policy(resume={"approvals": 2})).incident_approvals == 2
    assert conduct(policy(resume={"approvals": 1, "after_incident": 2})).incident_approvals == 2


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ({"quarantine": ["STOP_EVERYTHING"]}, "STOP_EVERYTHING"),
        ({"resume": {"by": ["carl"]}}, "carl"),
        ({"resume": {"by": ["ana"], "approvals": 2}}, "2 approvals, 1 can give one"),
        ({"resume": {"after_incident": 3}}, "3 approvals, 2 can give one"),
        ({"snapshots": {"every": "10"}}, "no duration"),
    ],
)
def test_what_cannot_be_is_named(section: dict[str, Any], found: str) -> None:
    with pytest.raises(OperatorError) as error:
        conduct(policy(**section))
    assert found in error.value.found
    assert error.value.expected


@pytest.mark.parametrize("section", [{"slow_down": {"at_percent": 100}}, {"recovery": "maybe"}, {"unknown": 1}])
def test_what_is_no_section_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        policy(**section)


def test_waiting_is_told_once_until_a_request_is_answered() -> None:
    told: list[tuple[str, str]] = []
    waiting = Waiting(lambda kind, data: told.append((kind, str(data.get("reason", "")))))
    for reason in ("paused", "paused", "paced", "paced", "scope", "scope", "paced"):
        waiting.post("model.refused", {"reason": reason})
    waiting.post("model.usage", {})
    waiting.post("model.refused", {"reason": "paced"})
    assert [reason for kind, reason in told if kind == "model.refused"] == [
        "paused", "paced", "scope", "scope", "paced", "paced",
    ]  # fmt: skip
