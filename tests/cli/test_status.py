"""`inbounds status`: finished, running, orphaned and damaged runs, told from the journal and the operating system."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import evidence
import pytest
from click.testing import CliRunner

from inbounds.cli.status import command
from inbounds.contracts.errors import HostError
from inbounds.journal.writer import Journal
from inbounds.run import recovery

OTHER = "20261120-231501-a1b2c4"
WRITER = """
import sys, time
from pathlib import Path
from inbounds.journal.writer import Journal
sys.path.insert(0, sys.argv[2])
import evidence
journal = Journal.open(Path(sys.argv[1]) / "journal.jsonl", at_ms=evidence.START)
for number, (kind, data) in enumerate(evidence.good_run()[:6], 1):
    journal.append(kind, data, evidence.START + number)
print("written", flush=True)
time.sleep(60)
"""


def ask(*args: str) -> dict:
    done = CliRunner().invoke(command, ["--json", *args], standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0
    return json.loads(done.stdout)


@pytest.fixture
def supervisor(home: Path):
    """A living process that holds a run's journal, as a supervisor does."""
    run_dir = home / "runs" / OTHER
    run_dir.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run_dir), str(Path(evidence.__file__).parent)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_nothing_yet(home: Path, inbounds) -> None:
    done = inbounds("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "inbounds run" in done.stdout
    assert ask() == {"home": str(home), "runs": [], "not_shown": 0}


def test_a_finished_run_has_code_spend_and_next_commands(finished: Path, inbounds) -> None:
    (run,) = ask()["runs"]
    assert (run["run_id"], run["phase"], run["code"], run["recovered"]) == (finished.name, "finished", "DONE", False)
    assert (run["spent_micro_usd"], run["budget_micro_usd"], run["iterations"]) == (246_000, 5_000_000, 3)
    assert (run["thread"], run["agent"], run["needs_decision"]) == ("billing", "claude", False)
    assert f"inbounds review {finished.name}" in run["next"]
    done = inbounds("status")
    assert done.returncode == 0
    for expected in (finished.name, "DONE", "billing", "$0.246", "$5.00"):
        assert expected in done.stdout


def test_a_stopped_run_waits_for_a_person(home: Path) -> None:
    steps = [*evidence.good_run()[:4], *evidence.stop("STOP_SCOPE_EXCEEDED", "scope: elsewhere", "quarantine")]
    evidence.write(home, [*steps, ("run.finished", {"code": "STOP_SCOPE_EXCEEDED", "exit": 1})])
    (run,) = ask()["runs"]
    assert (run["code"], run["why"], run["needs_decision"]) == ("STOP_SCOPE_EXCEEDED", "scope: elsewhere", True)


def test_a_living_supervisor_is_running_and_a_dead_one_is_not(home: Path, supervisor, monkeypatch) -> None:
    (run,) = ask()["runs"]
    assert (run["phase"], run["code"], run["recovered"]) == ("running", "", False)
    supervisor.kill()
    supervisor.wait()
    (run,) = ask("--no-recover")["runs"]
    assert (run["phase"], run["recovered"]) == ("orphaned", False)
    plain = CliRunner().invoke(command, ["--no-recover"], standalone_mode=False)
    assert (
        f"{OTHER}: its supervisor died; inbounds recover {OTHER} goes on, inbounds stop {OTHER} ends it" in plain.stdout
    )

    asked: list[str] = []

    def recover(state, run_id: str) -> dict[str, str]:
        asked.append(run_id)
        with Journal.open(state.run(run_id) / "journal.jsonl") as journal:
            journal.append("stop.decided", {"code": "STOP_HOST_FAILED", "why": "it died", "disposal": "quarantine"})
            journal.append("run.finished", {"code": "STOP_HOST_FAILED", "exit": 1})
        return {}

    monkeypatch.setattr(recovery, "may_go_on", lambda *_: False)  # policy wants it ended
    monkeypatch.setattr(recovery, "recover", recover)
    (run,) = ask()["runs"]
    assert asked == [OTHER]
    assert (run["phase"], run["code"], run["recovered"]) == ("finished", "STOP_HOST_FAILED", True)
    assert ask()["runs"][0]["recovered"] is False


def test_a_recovery_that_fails_is_said_and_hides_no_other_run(home: Path, finished: Path, monkeypatch) -> None:
    lost = home / "runs" / OTHER
    with Journal.open(lost / "journal.jsonl"):
        pass

    def fail(state, run_id: str) -> None:
        raise HostError(f"{run_id} has no contract", fix="inbounds discard")

    monkeypatch.setattr(recovery, "recover", fail)
    first, second = ask()["runs"]
    assert (first["run_id"], first["phase"]) == (OTHER, "orphaned")
    assert "no contract" in first["problem"]
    assert (second["run_id"], second["phase"]) == (finished.name, "finished")


def test_a_recovery_without_a_contract_is_a_problem_and_no_crash(home: Path, inbounds) -> None:
    with Journal.open(home / "runs" / OTHER / "journal.jsonl"):
        pass
    done = inbounds("status", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["phase"] == "orphaned"
    assert run["problem"]


def test_a_damaged_journal_is_never_written_to_by_a_recovery(home: Path, monkeypatch) -> None:
    run = evidence.write(home, evidence.good_run()[:6])
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"level":1', b'"level":2', 1))
    monkeypatch.setattr(recovery, "recover", lambda *_: pytest.fail("a journal that does not hold was taken over"))
    assert ask()["runs"][0]["phase"] == "damaged"


def test_an_edited_journal_is_damaged_and_points_to_verify(finished: Path, inbounds) -> None:
    path = finished / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"spent_micro_usd":82000', b'"spent_micro_usd":12000', 1))
    (run,) = ask()["runs"]
    assert run["phase"] == "damaged"
    assert "edited" in run["problem"]
    assert f"inbounds verify {finished.name}" in run["next"]
    assert "inbounds verify" in inbounds("status").stdout


def test_a_run_whose_supervisor_is_only_starting_is_left_alone(home: Path, monkeypatch) -> None:
    (home / "runs" / OTHER).mkdir(parents=True)
    monkeypatch.setattr(recovery, "recover", lambda *_: pytest.fail("it was recovered while it started"))
    assert ask()["runs"][0]["phase"] == "starting"


def test_only_the_latest_are_read_unless_all_are_asked_for(home: Path) -> None:
    old = time.time()
    for number in range(25):
        run_dir = home / "runs" / f"20261120-2315{number:02d}-a1b2c3"
        run_dir.mkdir(parents=True)
        os.utime(run_dir, (old, old))
    answer = ask()
    assert (len(answer["runs"]), answer["not_shown"]) == (20, 5)
    assert answer["runs"][0]["run_id"].startswith("20261120-231524")
    assert len(ask("--all")["runs"]) == 25


def test_one_run_by_a_part_of_its_id(finished: Path, inbounds) -> None:
    assert [run["run_id"] for run in ask("a1b2c3")["runs"]] == [finished.name]
    wrong = inbounds("status", "ffffff")
    assert wrong.returncode == 100
    assert finished.name in wrong.stderr


def test_a_hostile_thread_name_cannot_steer_the_terminal(home: Path, inbounds) -> None:
    steps = evidence.good_run()
    steps[0][1]["thread"] = "x\x1b[2J\x1b]0;owned\x07\u202e"
    evidence.write(home, steps)
    done = inbounds("status")
    assert "\x1b[2J" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "\\x1b[2J" in done.stdout
