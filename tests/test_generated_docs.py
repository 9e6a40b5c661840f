"""Documents that follow from the code are current, and the commands that a stop's page names can be typed.

Knows no stop rule: tools/state_diagram.py and tools/stop_codes.py ask the kernel.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from inbounds.cli.flags import limits_text
from inbounds.cli.main import group
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.reasons import MEANING, StopCode

ROOT = Path(__file__).resolve().parents[1]
CODES = list(StopCode)


def tool(name: str) -> ModuleType:
    if str(ROOT / "tools") not in sys.path:
        sys.path.insert(0, str(ROOT / "tools"))
    return __import__(name)


def written(code: str) -> str:
    return (ROOT / "docs" / "stop-codes" / f"{code}.md").read_text(encoding="utf-8")


def test_the_state_machine_page_is_what_the_kernel_does() -> None:
    diagram = tool("state_diagram")
    assert diagram.PAGE.read_text(encoding="utf-8") == diagram.page(), "type: .venv/bin/python tools/state_diagram.py"


def test_the_state_machine_page_follows_a_changed_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: of a kernel that has no judge look at a tree there is no page."""
    diagram = tool("state_diagram")
    real = diagram.decide

    def mute(state: object, event: object, at_ms: int) -> object:
        after, effects = real(state, event, at_ms)
        return after, tuple(effect for effect in effects if type(effect).__name__ != "Judge")

    monkeypatch.setattr(diagram, "decide", mute)
    with pytest.raises(AssertionError, match="did not meet"):
        diagram.explore.__wrapped__()


def test_the_pages_are_the_same_in_every_process() -> None:
    """Sets have another order under another hash seed."""
    for name in ("state_diagram", "stop_codes"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--check"],
            env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.req("E15")
def test_every_stop_code_has_its_page_and_no_page_is_stale() -> None:
    codes = tool("stop_codes")
    assert codes.stale() == [], "type: .venv/bin/python tools/stop_codes.py"
    for code in CODES:
        disposal, meaning = MEANING[code]
        assert f"| [`{code}`](stop-codes/{code}.md) | {meaning} | {disposal} |" in codes.index()
        assert codes.faults(code, written(code)) == []


def test_a_stray_or_missing_page_or_section_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = tool("stop_codes")
    monkeypatch.setattr(codes, "PAGES", tmp_path)
    for code in CODES[1:]:
        (tmp_path / f"{code}.md").write_text(written(code), encoding="utf-8")
    (tmp_path / "STOP_BORED.md").write_text("# STOP_BORED\n", encoding="utf-8")
    emptied = written("STOP_OPERATOR").split("## How to go on")[0] + "## How to go on\n"
    (tmp_path / "STOP_OPERATOR.md").write_text(emptied, encoding="utf-8")
    with pytest.raises(SystemExit) as wrong:
        codes.pages()
    assert "STOP_BORED.md is of no stop code" in str(wrong.value)
    assert "DONE.md is missing" in str(wrong.value)
    assert "STOP_OPERATOR.md has an empty section" in str(wrong.value)


def test_a_page_keeps_what_people_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = tool("stop_codes")
    found = tool("state_diagram").explore()
    text = written("STOP_OPERATOR").replace("How to go on\n", "How to go on\nAsk Ana first.\n")
    assert "Ask Ana first." in codes.page(StopCode.STOP_OPERATOR, text, found)
    monkeypatch.setitem(MEANING, StopCode.STOP_OPERATOR, (MEANING[StopCode.STOP_OPERATOR][0], "somebody pulled a plug"))
    assert "somebody pulled a plug" in codes.page(StopCode.STOP_OPERATOR, text, found)


def commands(text: str) -> Iterator[str]:
    """What stands in code: in backquotes, or on a line of its own."""
    yield from re.findall(r"(?:^|`)inbounds ([^`\n]+)", text, re.MULTILINE)


def typed(line: str) -> click.Context:
    """The context in which click would run a command; a click exception for what cannot be typed."""
    words = [{"SEQ": "42"}.get(word, word) for word in shlex.split(line)]
    context = group.make_context("inbounds", words)
    command: click.Command = group
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("code", CODES)
def test_every_command_of_a_page_can_be_typed(code: StopCode) -> None:
    named = list(commands(written(code)))
    assert len(named) > 3, named
    for line in named:
        context = typed(line)
        if context.params.get("limits"):
            limits_text({"budget": "", "duration": "", "iterations": None, **context.params})


@pytest.mark.parametrize(
    "line", ["resum RUN", "resume RUN --money 5", "resume RUN A B", "plan drop .", "logs RUN --at x"]
)
def test_a_command_that_cannot_be_typed_is_found(line: str) -> None:
    with pytest.raises(click.ClickException):
        typed(line)


def test_a_limit_that_there_is_not_is_found() -> None:
    with pytest.raises(OperatorError):
        limits_text({"budget": "", "duration": "", "iterations": None, **typed("resume RUN --limit speed=9").params})


@pytest.mark.parametrize("code", [code for code in CODES if code is not StopCode.DONE])
def test_a_stops_page_says_how_to_resume_and_when_not_to(code: StopCode) -> None:
    section = written(code).split("## How to go on")[1]
    assert "inbounds resume RUN" in section or code is StopCode.STOP_TAMPERING  # which cannot be resumed, and says so
    assert re.search(r"\b[Dd]o\s+not\b|\bcannot\b|\bcan\s+neither\b", section)
