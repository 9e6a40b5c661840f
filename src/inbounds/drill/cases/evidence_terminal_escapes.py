r"""What an agent says and names, shown to a reviewer: escape sequences (CSI, OSC, C1), carriage returns, bidirectional
overrides (CVE-2021-42574), zero-width letters and marks that paint over the line above.
"""

import io
import unicodedata
from collections.abc import Mapping
from typing import Any

from inbounds.console.terminal import contract_screen, event_line, timeline_line
from inbounds.console.timeline import Timeline
from inbounds.journal import chain

CLASS = "evidence"
REQUIREMENT = "Q2"
KIND = "host"
EVIL = (
    "\x1b[2J\x1b[1;1H\x1b]0;verified\x07\x1b]8;;http://evil.example\x1b\\ok\x1b[8m \x9b31m \x90q\x9c\rDONE every test passes"
    "\u202edesrever\u2066 \u200b\u2060\ufeff\u2028 a\u0300\u0301\u0302\u0303\u0304\u0305\u0306 \U000e0041 \x00 \x7f \u3164"
)
# every kind that quotes what an agent or a model wrote, with the text in each of its fields
KINDS = (
    "agent.said", "denial", "model.refused", "verdict", "snapshot.taken", "tool.called", "commit.made", "stop.decided",
    "part.failed", "run.accepted", "notice.sent", "iteration.finished", "operator.stopped", "a.kind_nobody_knows",
)  # fmt: skip
FIELDS = ("text", "detail", "what", "why", "reason", "summary", "tool", "code", "who", "path", "outcome", "judge", "kind",
          "part", "goal", "run_id", "operator", "agent", "model", "branch", "commit", "tree", "findings", "n")  # fmt: skip


def _records() -> list[chain.Record]:
    made, previous = [], chain.GENESIS
    for seq, kind in enumerate(KINDS):
        record, _ = chain.encode(seq, 1_795_341_600_000 + seq, kind, dict.fromkeys(FIELDS, EVIL), previous)
        made.append(record)
        previous = record.hash
    return made


def _steering(text: str) -> list[str]:
    """Characters that a terminal obeys or hides, line feeds apart."""
    odd = {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    return sorted(f"U+{ord(c):04X}" for c in odd)


def control(_: Any) -> dict[str, Any]:
    """Formatted and printed."""
    shown = "\n".join(f"{record.seq} {record.kind} {record.data['text']}" for record in _records())
    return {"lines": len(KINDS), "steering": _steering(shown)}


def attack(_: Any) -> dict[str, Any]:
    """The real timeline, single lines, and the screen before a signature."""
    from rich.console import Console

    timeline = Timeline(verbose=True)
    shown = [event_line(record) for record in _records()]
    for record in _records():
        shown += [timeline_line(line, width=100, color=False, verbose=True) for line in timeline.feed(record)]
    shown += [timeline_line(line, width=100, color=False) for line in timeline.end()]
    screen = Console(file=io.StringIO(), width=80, force_terminal=False)
    screen.print(
        contract_screen({"goal": EVIL, "agent": EVIL, "thread": EVIL, "requirements": []}, {"can_write": [EVIL]})
    )
    assert isinstance(screen.file, io.StringIO)
    text = "\n".join([*shown, screen.file.getvalue()])
    if "every test passes" not in text:
        raise ValueError("the text was not shown at all, so that nothing was tried")
    return {"lines": len(shown), "steering": _steering(text)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What of it reaches the terminal."""
    said = after["said"]
    words = f"{said['lines']} lines shown, steering characters: {', '.join(said['steering']) or 'none'}"
    return ("ESCAPED" if said["steering"] else "BLOCKED"), words
