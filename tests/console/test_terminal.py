"""Terminal output: one line per record, one screen per contract, never an escape that is not ours."""

import copy
import io
from pathlib import Path

import evidence
import pytest
from rich.console import Console

from inbounds.console import terminal
from inbounds.console.sentences import SENTENCES
from inbounds.journal import chain, manifest


def plain(renderable: object, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(renderable)
    return out.getvalue()


def test_every_record_is_one_readable_line(tmp_path: Path) -> None:
    run = evidence.write(tmp_path, evidence.good_run())
    lines = [terminal.event_line(record) for record in evidence.read(run)]
    assert any(line.startswith("23:15:07  asked     Dana Oduya asks claude 2.1.40") for line in lines)
    assert any(line.endswith("iteration 1: failing tests 5 → 3, progress") for line in lines)
    assert any("$0.041 (run: $0.082)" in line for line in lines)
    stop = "the run stops, DONE: every acceptance test passes and no judge objects (workspace: keep)"
    assert any(line.endswith(f"decided   {stop}") for line in lines)
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize("kind", [*SENTENCES, "something.new"])
def test_no_record_can_steer_the_terminal_or_break_the_line(kind: str) -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\r\n\u202eevil" + "x" * 10_000
    keys = ("run_id", "plan_id", "operator", "role", "reason", "model", "detail", "tool", "outcome", "judge", "summary",
            "why", "code", "step", "target", "kind", "channel", "text", "branch", "n", "who", "part")  # fmt: skip
    line = terminal.event_line(chain.Record(1, evidence.START, kind, dict.fromkeys(keys, hostile), "", ""))
    assert line.isprintable()
    assert len(line) < 600
    assert terminal.event_line(chain.Record(1, evidence.START, kind, {}, "", "")), "and without its data it is a line"


@pytest.mark.req("Q1")
def test_contract_and_blast_radius_fit_one_screen() -> None:
    text = plain(terminal.contract_screen(evidence.CONTRACT, evidence.RADIUS))
    assert len(text.splitlines()) <= 23, text
    for word in (
        "FR-12",
        "must pass     billing/tests/test_round.py::test_half_up",
        "at most",
        "$5.00",
        "may not read",
    ):
        assert word in text


def test_the_summary_puts_the_decision_first(tmp_path: Path) -> None:
    made = manifest.derive(evidence.read(evidence.write(tmp_path, evidence.good_run())))
    lines = plain(terminal.run_summary(made)).splitlines()
    assert "DONE" in lines[1]
    assert any("5 → 0" in line for line in lines)
    assert any(line.startswith("inbounds rollback") for line in lines)


def test_markup_and_escapes_in_a_summary_are_text(tmp_path: Path) -> None:
    steps = copy.deepcopy(evidence.good_run())
    next(d for k, d in steps if k == "stop.decided")["why"] = "[red]\x1b[31m[/red] [link=http://evil]x[/link]"
    made = manifest.derive(evidence.read(evidence.write(tmp_path, steps)))
    text = plain(terminal.run_summary(made))
    assert "[red]\\x1b[31m[/red] [link=http://evil]x[/link]" in text
    hostile = {**evidence.CONTRACT, "goal": "[bold]\x1b]0;x\x07[/bold]"}
    assert "[bold]\\x1b]0;x\\x07[/bold]" in plain(terminal.contract_screen(hostile, evidence.RADIUS))
