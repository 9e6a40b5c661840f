"""What an incident record says, from journals that were made for it: legs, exposed keys, landed refs, hostile names."""

import os
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts.canonical import canonical
from inbounds.journal.chain import Record
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal
from inbounds.run import incident_facts, incident_record, requests, response_plan, stopping

STOP = {"code": "STOP_OPERATOR", "why": "x", "disposal": "quarantine", "checkpoint": ""}
SECRET = b"a journal's key, in tests alone!"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A run's journal, open for writing."""
    run_dir = tmp_path / "runs" / "20260101-000000-abcdef"
    return Journal.open(run_dir / "journal.jsonl", signer=Signer(SECRET))


def test_a_tail_is_about_the_present_leg(journal: Journal) -> None:
    tail = incident_facts.Tail(journal.path.parent)
    journal.append("stop.decided", STOP)
    journal.append("run.finished", {"code": "STOP_OPERATOR", "exit": 1})
    journal.sync()
    tail.look()
    assert (tail.sealed, tail.over) == (True, True), "the control: an ended leg is seen as one"
    journal.append("run.reauthorized", {"stop_hash": "0" * 64, "operators": ["dana"]})
    tail.look()
    assert (tail.sealed, tail.over, tail.stop) == (False, False, None), "an earlier stop is not this one"
    journal.append("stop.decided", {**STOP, "code": "STOP_BUDGET_EXCEEDED"})
    tail.look()
    assert tail.sealed
    assert tail.stop is not None
    assert tail.stop.data["code"] == "STOP_BUDGET_EXCEEDED"
    journal.close()


def test_a_long_journal_is_read_at_its_ends(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_facts, "HEAD_BYTES", 4_000)
    monkeypatch.setattr(incident_facts, "TAIL_BYTES", 4_000)
    journal.append("run.accepted", {"contract_sha256": "ab" * 32})
    for n in range(200):
        journal.append("iteration.started", {"n": n})
    journal.close()
    records, in_part = incident_facts.ends(journal.path.parent)
    assert in_part
    assert len(records) < 60
    found = incident_facts.of_records(records)
    assert (found["accepted_sha256"], found["iteration"]) == ("ab" * 32, 199)
    tail = incident_facts.Tail(journal.path.parent)
    tail.look()  # begins within a line, and does not stumble over it
    assert not tail.sealed


def test_what_landed_lately_is_named(journal: Journal) -> None:
    landed = {"outcome": "promoted", "target": "development", "commit": "c" * 40}
    record = journal.append("promotion.decided", landed)
    journal.append("promotion.decided", {**landed, "outcome": "refused"})
    journal.close()
    run_dir = journal.path.parent
    (found,) = incident_facts.landed_since([run_dir], record.at_ms - 1)
    assert (found["ref"], found["commit"], found["run_id"]) == ("development", "c" * 40, run_dir.name)
    assert incident_facts.landed_since([run_dir], record.at_ms + 1) == []


def run(**changed: Any) -> dict[str, Any]:
    """One run as the record states it."""
    return {
        "run_id": "20260101-000000-abcdef", "repository": "/r", "thread": "billing", "branch": "agent/x", "pid": 7,
        "providers": [{"name": "openai", "url": "https://api.example"}], "stop": {**STOP, "hash": "0" * 64, "seq": 3},
        "decoys": [], "answered": True, "approvals": {"wanted": 2, "by": ["dana", "sam"]}, **changed,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed", [{"decoys": ["~/.aws/credentials was opened"]}, {"stop": {**STOP, "code": "STOP_SECRET_EXPOSURE"}}]
)
def test_keys_are_to_be_rotated_where_a_secret_was_reached_for(changed: dict[str, Any]) -> None:
    quiet = incident_record.scopes([run()], [])
    assert [key["rotate"] for key in quiet["keys"]] == [False], "the control"
    reached = incident_record.scopes([run(), run(**changed)], [])
    assert [(key["name"], key["rotate"]) for key in reached["keys"]] == [("openai", True)]
    steps = incident_record.next_steps({"runs": [run(**changed)], "scopes": reached})
    assert steps[0]["what"] == "Rotate keys"
    resume = next(step for step in steps if step["what"] == "Go on")
    assert "2 of: dana, sam" in resume["commands"][0]


def test_the_timeline_is_merged_bounded_and_printable() -> None:
    many = [Record(n, 1_000 + n, "denial", {"what": "host", "detail": "\x1b[2J`x`"}, "", "") for n in range(300)]
    made = incident_record.timeline({"a": many, "b": [Record(0, 1_299, "iteration.started", {"n": 1}, "", "")]})
    assert len(made["entries"]) == incident_record.TIMELINE_OF_RUN + 1
    assert made["left_out"] == 200
    assert [entry["at_ms"] for entry in made["entries"]] == sorted(entry["at_ms"] for entry in made["entries"])
    assert all(entry["text"].isprintable() for entry in made["entries"])


def test_an_incident_request_is_there_with_what_holds_it_back_until_it_is_dropped(tmp_path: Path) -> None:
    record = tmp_path / "incident.json"
    requests.ask_stop(tmp_path, who="dana", why="y", incident=True, incident_id="i", hold=(5, str(record)))
    found = requests.find_stop(tmp_path)
    assert found is not None
    assert found.said == {"who": "dana", "why": "y", "incident": True, "hold": (5, str(record)), "incident_id": "i"}
    assert requests.find_stop(tmp_path) == found
    requests.ask_stop(tmp_path, who="dana", why="z")
    found.drop()  # another word has taken its place, and nobody has read that
    second = requests.find_stop(tmp_path)
    assert second is not None
    assert second.said == {"who": "dana", "why": "z", "incident": False, "hold": (0, "")}
    second.drop()
    assert requests.find_stop(tmp_path) is None


def test_a_new_leg_forgets_what_was_asked_before_it_and_nothing_else(tmp_path: Path) -> None:
    requests.ask_stop(tmp_path, who="dana", why="old")
    os.utime(tmp_path / requests.STOP, (1, 1))
    requests.ask_amendment(tmp_path, {}, "")
    requests.forget(tmp_path, 2 * 10**9)
    assert requests.find_stop(tmp_path) is None
    assert requests.find_amendment(tmp_path) is not None


def test_a_stop_gives_way_until_the_record_is_there_and_never_for_long(tmp_path: Path) -> None:
    import time

    record = tmp_path / "incident.json"
    far = time.time_ns() // 1_000_000 + 3_600_000
    began = time.monotonic()
    stopping.give_way(far, str(record))
    assert 0.9 <= time.monotonic() - began < 3
    record.touch()
    began = time.monotonic()
    stopping.give_way(far, str(record))
    stopping.give_way(0, "")
    assert time.monotonic() - began < 0.5


def test_quarantines_are_found_in_the_order_of_their_legs(tmp_path: Path) -> None:
    assert stopping.quarantines(tmp_path) == []
    for name in ("quarantine", "quarantine-2"):
        (tmp_path / name).mkdir()
    assert [path.name for path in stopping.quarantines(tmp_path)] == ["quarantine", "quarantine-2"]


def test_a_response_plan_names_whom_policy_names_and_quotes_no_markup() -> None:
    named = response_plan.People("o|wner`<b>\n# x", ("dana", "sam"), ("dana", "sam"), 2)
    text = response_plan.write("billing", named)
    assert "2 signatures by: dana, sam" in text
    assert "| operator | sam | |" in text
    assert "\n# x" not in text
    assert "<b>" not in text
    assert "inbounds stop --all --why" in text
    assert max(map(len, text.splitlines())) <= 130


def test_a_record_can_be_written_twice_and_is_never_half_there(tmp_path: Path) -> None:
    assert os.listdir(tmp_path) == []
    times = dict.fromkeys(("frozen_at_ms", "sealed_at_ms", "ended_at_ms"))
    made: dict[str, Any] = {
        "format": incident_record.FORMAT, "incident": "20260101-000000-abcdef", "status": "sealed", "who": "dana",
        "why": "# y", "host": "h", "times": {"asked_at_ms": 1, "recorded_at_ms": 2, **times}, "runs": [], "others": [],
        "problems": [], "scopes": incident_record.scopes([], []), "next_steps": [],
        "timeline": {"entries": [], "left_out": 0},
    }  # fmt: skip
    first = incident_record.write(tmp_path, made, Signer(SECRET))
    second = incident_record.write(tmp_path, {**made, "status": "ended"}, Signer(SECRET))
    assert first != second
    assert sorted(os.listdir(tmp_path)) == ["incident.json", "incident.md", "incident.sig"]
    assert (tmp_path / "incident.json").read_bytes() == canonical({**made, "status": "ended"}) + b"\n"
