"""`inbounds review`: a decision first, the report's path, the exact next commands; loud where evidence does not hold."""

import json
from pathlib import Path

import click
import evidence
import pytest
from click.testing import CliRunner

from inbounds.cli import review


@pytest.fixture
def stopped(home: Path) -> Path:
    steps = [*evidence.good_run()[:4], *evidence.stop("STOP_SCOPE_EXCEEDED", "scope: elsewhere", "quarantine")]
    return evidence.write(home, [*steps, ("run.finished", {"code": "STOP_SCOPE_EXCEEDED", "exit": 1})])


def test_a_finished_run_on_one_screen(finished: Path, inbounds) -> None:
    done = inbounds("review")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 40
    for expected in ("DONE", "$0.246", "5 → 0", f"inbounds rollback {finished.name}", str(finished / "report.html")):
        assert expected in done.stdout
    assert (finished / "report.html").read_text().startswith("<!")


def test_reviewing_a_stopped_run_is_no_failure(stopped: Path, inbounds) -> None:
    done = inbounds("review", stopped.name)
    assert done.returncode == 0
    assert "STOP_SCOPE_EXCEEDED" in done.stdout
    assert f"inbounds resume {stopped.name}" in done.stdout


def test_json_holds_what_the_screen_says(stopped: Path, inbounds) -> None:
    facts = json.loads(inbounds("review", "--json").stdout)
    assert (facts["code"], facts["ended"], facts["verified"], facts["needs_decision"]) == (
        "STOP_SCOPE_EXCEEDED",
        True,
        True,
        True,
    )
    assert facts["report"] == str(stopped / "report.html")
    assert f"inbounds discard {stopped.name}" in [step["command"] for step in facts["next"]]
    assert facts["manifest"]["exit"]["code"] == "STOP_SCOPE_EXCEEDED"


def test_tampered_evidence_is_said_and_exits_1(finished: Path, inbounds) -> None:
    path = finished / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"spent_micro_usd":82000', b'"spent_micro_usd":12000', 1))
    # The journal holds up to the break only; that it ended is what its anchors say.
    done = inbounds("review")
    assert "DOES NOT HOLD" in done.stdout
    assert done.returncode == 1
    assert json.loads(inbounds("review", "--json").stdout)["verified"] is False


def test_a_cut_journal_is_said_although_it_has_no_end(finished: Path, inbounds) -> None:
    path = finished / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    done = inbounds("review")
    assert done.returncode == 1
    assert "truncated" in done.stdout


def test_a_journal_torn_by_a_power_loss_is_no_tampering(home: Path, inbounds) -> None:
    run = evidence.write(home, evidence.good_run()[:6])
    with (run / "journal.jsonl").open("ab") as file:
        file.write(b'{"at_ms":17')
    assert inbounds("review").returncode == 0


def test_a_run_without_a_journal_has_nothing_to_review_yet(home: Path, inbounds) -> None:
    (home / "runs" / evidence.RUN_ID).mkdir(parents=True)
    done = inbounds("review")
    assert done.returncode == 100
    assert f"inbounds status {evidence.RUN_ID}" in done.stderr


def test_a_changed_manifest_is_said_too(finished: Path, inbounds) -> None:
    (finished / "manifest.json").write_text("{}")
    done = inbounds("review")
    assert done.returncode == 1
    assert "DOES NOT HOLD" in done.stdout


def test_a_run_that_has_not_ended_is_not_called_done(home: Path, inbounds) -> None:
    run = evidence.write(home, evidence.good_run()[:6])
    done = inbounds("review")
    assert done.returncode == 0
    assert "DONE" not in done.stdout
    assert "has not ended" in done.stdout
    assert f"inbounds status {run.name}" in done.stdout


@pytest.mark.parametrize(("args", "opens"), [(["--open"], True), (["--no-open"], False), ([], False)])
def test_a_browser_opens_only_when_wished(finished: Path, monkeypatch, args: list[str], opens: bool) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", lambda url: opened.append(url) or 0)
    done = CliRunner().invoke(review.command, args, standalone_mode=False)
    assert done.exception is None
    assert opened == ([str(finished / "report.html")] if opens else [])


def test_on_a_desktop_it_opens_by_itself(finished: Path, monkeypatch) -> None:
    monkeypatch.setattr(review, "is_terminal", lambda: True)
    assert review._desktop() is False
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert review._desktop() is True
