"""A drill's evidence: only a whole, clean, signed, young one of this very host counts; anything done to it shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts.ids import run_id
from inbounds.drill import record
from inbounds.journal.signing import open_signer, public_key

DAY = 24 * 3600 * 1000
COUNTS = {"counted": 130, "escaped": 0, "no_control": 0, "inconclusive": 0, "complete": True, "cases": 2}


def write(home: Path, *, mode: str = "rootless", name: str = "20261122-100000-aaaaaa", **changes: Any) -> Path:
    with record.DrillJournal(home, name, open_signer(home / "keys")) as journal:
        journal.started({"mode": mode})
        journal.case({"id": "network.udp", "outcome": "BLOCKED"})
        journal.case({"id": "network.tcp", "outcome": "BLOCKED"})
        journal.finished({**COUNTS, **changes})
    return home / "drills" / name


def read(directory: Path) -> record.Recorded:
    return record.read(directory, public_key(directory.parent.parent / "keys"))


@pytest.mark.req("H14", "M12")
def test_a_finished_drill_holds_and_is_clean(tmp_path: Path) -> None:
    found = read(write(tmp_path))
    assert (found.problem, found.clean, found.cases) == ("", True, 2)
    assert (tmp_path / "anchors" / "drill-20261122-100000-aaaaaa.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [{"escaped": 1}, {"inconclusive": 1}, {"complete": False}, {"counted": 3}, {"counted": "many"}, {"escaped": "0"}],
)
def test_a_drill_that_found_something_or_was_no_whole_one_is_not_clean(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = read(write(tmp_path, **changes))
    assert (found.problem, found.clean) == ("", False)


@pytest.mark.req("H14")
def test_whatever_is_done_to_it_shows(tmp_path: Path) -> None:
    directory = write(tmp_path)
    journal = directory / record.JOURNAL
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for content in (
        whole.replace(b'"escaped":0', b'"escaped":9'),
        b"".join(lines[:-1]),  # its signature is gone
        b"".join(lines[:-2]),
        b"".join([lines[0], *lines[2:]]),
        whole + lines[-1],
        b"",
        whole.replace(b"BLOCKED", b"ESCAPED"),
        b"\0\n",
    ):
        journal.write_bytes(content)
        found = read(directory)
        assert found.problem, content[:200]
        assert not found.clean
    journal.write_bytes(whole)
    assert read(directory).clean  # the untouched one
    journal.unlink()
    assert read(directory).problem


def test_anothers_signature_is_none(tmp_path: Path) -> None:
    directory = write(tmp_path / "mine")
    write(tmp_path / "other")
    found = record.read(directory, public_key(tmp_path / "other" / "keys"))
    assert "signed" in found.problem
    assert not found.clean


def test_a_drill_under_another_name_is_not_that_one(tmp_path: Path) -> None:
    directory = write(tmp_path)
    moved = directory.with_name("20261123-100000-bbbbbb")
    directory.rename(moved)
    assert read(moved).problem


def test_an_interrupted_drill_is_no_evidence(tmp_path: Path) -> None:
    with record.DrillJournal(tmp_path, "20261122-100000-aaaaaa", open_signer(tmp_path / "keys")) as journal:
        journal.started({"mode": "rootless"})
    found = read(tmp_path / "drills" / "20261122-100000-aaaaaa")
    assert found.problem == "it was not finished"


@pytest.mark.req("M12", "F10")
def test_policy_asks_for_a_young_clean_drill_of_this_host_mode_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = public_key_of(tmp_path)
    assert record.lacking(tmp_path, key, "rootless", 7) == "there was none"
    found = read(write(tmp_path))
    now = found.at_ms

    def lacks(mode: str = "rootless", days: int = 7, later_ms: int = 0) -> str:
        return record.lacking(tmp_path, key, mode, days, now + later_ms)

    assert lacks() == ""
    assert lacks(later_ms=7 * DAY - 1) == ""
    assert "7 days old" in lacks(later_ms=7 * DAY)
    assert "another mode" in lacks("hardened")
    assert lacks(later_ms=-2 * DAY), "a drill from the future is no evidence"
    for name in ("host", "kernel", "inbounds"):
        monkeypatch.setattr(record, "host_facts", lambda name=name: {**record_facts, name: "other"})
        assert f"another {name}" in lacks()
    monkeypatch.setattr(record, "host_facts", lambda: record_facts)
    write(tmp_path, name=run_id("20261123-100000", "bbbbbb"), escaped=2)
    assert lacks() == "", "an older clean one is young enough"
    journal = tmp_path / "drills" / "20261122-100000-aaaaaa" / record.JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"escaped":0', b'"escaped":1'))
    assert "not clean: 2 escaped" in lacks()


record_facts = record.host_facts()


def public_key_of(home: Path) -> Any:
    open_signer(home / "keys")
    return public_key(home / "keys")


def test_the_machines_own_id_is_not_told(tmp_path: Path) -> None:
    machine = Path("/etc/machine-id")
    text = json.dumps(record.host_facts())
    if machine.exists() and machine.read_text().strip():
        assert machine.read_text().strip() not in text
    assert len(record.host_facts()["host"]) == 32
