"""What a run looks like in a terminal: the contract on one screen, a summary, the lines of its timeline.

Everything passes through `visible`. Rich is imported where it is used, so that `--help` stays fast.
"""

import unicodedata
from datetime import UTC, datetime
from typing import Any

from inbounds.console.advice import advise
from inbounds.console.plain import visible
from inbounds.console.sentences import ASKED, DECIDED, EVIDENCE, REFUSED, SAID, SPENT, WRITTEN, money, sentence
from inbounds.console.timeline import DAY_MS, Line
from inbounds.contracts.units import show_duration
from inbounds.journal.chain import Record

WORD_CHARS, SINCE_CHARS = 8, 8  # the longest category; "+1:02:31"
INDENT = 8 + 1 + SINCE_CHARS + 2 + WORD_CHARS + 2  # of a sentence: time, since, category
ROOM_MIN = 20  # columns left for text on the narrowest terminal; below, its own wrapping does it
_TONES = {"good": "green", "warn": "yellow", "bad": "red"}
_TONE_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_WORD_TONES = {
    ASKED: "cyan", WRITTEN: "blue", REFUSED: "yellow", SPENT: "green", DECIDED: "bold", EVIDENCE: "dim", SAID: "dim",
}  # fmt: skip
_LABELS = {
    "can_write": "may write",
    "cannot_write": "may not write",
    "can_read": "may read",
    "cannot_read": "may not read",
    "network": "network",
    "devices": "devices",
    "can_execute": "may execute",
    "money_at_most": "money at most",
    "time_at_most": "time at most",
    "resources_at_most": "resources at most",
    "lands_on": "lands on",
    "undo": "undo",
}


def label(key: str) -> str:
    """A blast-radius key in words."""
    return _LABELS.get(key, key.replace("_", " "))


def ordered(blast: dict[str, Any]) -> list[tuple[str, Any]]:
    """A blast radius in the order in which it is read, whatever order it was stored in; equal lines once."""
    places = {key: place for place, key in enumerate(_LABELS)}
    once = [(key, list(dict.fromkeys(map(str, v))) if isinstance(v, list) else v) for key, v in blast.items()]
    return sorted(once, key=lambda item: places.get(item[0], len(places)))


def clock(at_ms: int) -> str:
    """Unix milliseconds as UTC time of day; for any number, since a journal may state a time beyond every calendar."""
    seconds = at_ms // 1_000 % 86_400
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def date(at_ms: int) -> str:
    """Unix milliseconds as a UTC date."""
    try:
        return datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return f"day {at_ms // DAY_MS} after 1970-01-01"


def event_line(record: Record) -> str:
    """One record as one line: time, category, sentence; as in a timeline, without what came before."""
    word, text = sentence(record.kind, record.data)
    return f"{clock(record.at_ms)}  {word:<{WORD_CHARS}}  {text}".rstrip()


def timeline_line(line: Line, *, width: int = 0, color: bool = False, verbose: bool = False) -> str:
    """One line of a timeline; wrapped under its sentence where `width` columns > 0, with newlines in it then.

    Columns: UTC time of day, time since the start, category, sentence; `verbose` names the record before the sentence.
    """
    match line.shape:
        case "day":
            return _tinted(f"{date(line.at_ms)} UTC", "dim", color=color)
        case "heading":
            return "\n" + _tinted("\n".join(_wrapped(line.text, width, "── ", "   ")), "bold", color=color)
        case "total" | "detail":
            first = " " * INDENT + ("= " if line.shape == "total" else "> ")
            text = "\n".join(_wrapped(line.text, width, first, " " * (INDENT + 2)))
            return _tinted(text.rstrip(), "dim", color=color)
        case _:
            text = f"#{line.seq} {line.kind}: {line.text}" if verbose and line.kind else line.text
            head = f"{clock(line.at_ms)} {_since(line.since_ms):>{SINCE_CHARS}}  "
            rest = _wrapped(text, width, " " * INDENT, " " * INDENT)
            body = "\n".join(rest)[INDENT:]
            return (
                head + _tinted(f"{line.word:<{WORD_CHARS}}", _WORD_TONES.get(line.word, ""), color=color) + "  " + body
            )


def _since(ms: int) -> str:
    seconds = ms // 1_000
    hours, minutes = seconds // 3_600, seconds // 60 % 60
    return f"+{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"+{minutes}:{seconds % 60:02}"


def _tinted(text: str, tone: str, *, color: bool) -> str:
    """Text in a terminal's own colours; nothing at all where there are none."""
    return f"\x1b[{_TONE_CODES[tone]}m{text}\x1b[0m" if color and tone else text


def _wrapped(text: str, width: int, first: str, then: str) -> list[str]:
    """Lines of at most `width` columns, broken at blanks where there are any; one line where `width` is 0."""
    if width <= 0 or cells(first + text) <= width:
        return [first + text]
    room = max(ROOM_MIN, width - len(then))
    lines, row = [], ""
    for part in text.split(" "):
        left = part
        if row and cells(row) + 1 + cells(left) <= room:
            row += " " + left
            continue
        if row:
            lines.append(row)
        while cells(left) > room:  # an id or a path that is longer than a line
            cut = _fitting(left, room)
            lines.append(left[:cut])
            left = left[cut:]
        row = left
    return [(then if n else first) + line for n, line in enumerate([*lines, row] if row else lines)]


def cells(text: str) -> int:
    """How many columns a terminal gives to a text: two for wide characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else unicodedata.combining(c) == 0 for c in text)


def _fitting(text: str, room: int) -> int:
    """How many characters of a text fit, at least one."""
    used = 0
    for n, char in enumerate(text):
        used += cells(char)
        if used > room:
            return max(1, n)
    return len(text)


def contract_screen(contract: dict[str, Any], blast: dict[str, Any]) -> Any:
    """What is about to be signed, as a Rich renderable for one screen of 80 by 24: no frames, nothing said twice."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    grid = [Table.grid(padding=(0, 1)) for _ in range(2)]
    for table in grid:
        table.add_column(style="dim", no_wrap=True, width=LABEL_CHARS)
        table.add_column(overflow="fold")
    for name, words in _asked(contract):
        grid[0].add_row(name, Text(visible(words, limit=300), style="green" if name == _MUST else ""))
    for name, words in _reach(blast):
        grid[1].add_row(name, Text(visible(words, limit=600)))
    return Group(grid[0], Rule("what it can touch at most", align="left", style="dim"), grid[1])


LABEL_CHARS = 13  # the longest that is shown, "may not write"
_MUST = "must pass"
_AT_MOST = ("money_at_most", "time_at_most", "resources_at_most")
SHOWN_MAX = 4  # of a list's items; the report has them all
ACCEPT_SHOWN_MAX = 5


def _asked(contract: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person asked for, as (name, words); a drafted requirement repeats the goal and is not shown for it."""
    goal, model = str(contract.get("goal") or ""), contract.get("model")
    rows = [("goal", goal)] if goal else []
    where = [str(contract.get("agent") or "?"), *([f"with {model}"] if model else [])]
    rows.append(("agent", f"{' '.join(where)}, in thread {contract.get('thread', '?')}"))
    for requirement in list(contract.get("requirements", []))[:10]:
        objective = str(requirement.get("objective", ""))
        words = f"{requirement.get('id', '')} of {requirement.get('owner', '')}"
        rows.append(("requirement", words if objective == goal else f"{words}: {objective}"))
        tests = [str(item.get("test", "")) for item in requirement.get("acceptance", [])]
        rows += [(_MUST, test) for test in tests[:ACCEPT_SHOWN_MAX]]
        if len(tests) > ACCEPT_SHOWN_MAX:
            rows.append(("", f"and {len(tests) - ACCEPT_SHOWN_MAX} more"))
    return rows


def _reach(blast: dict[str, Any]) -> list[tuple[str, str]]:
    """A blast radius as (label, words), the three ceilings on one line, a remark that all items share said once."""
    rows: list[tuple[str, str]] = []
    for key, value in ordered(blast):
        if key in _AT_MOST[1:]:
            continue
        if key == _AT_MOST[0]:
            rows.append(("at most", ", ".join(str(blast[name]) for name in _AT_MOST if name in blast)))
            continue
        items = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        remarks = {item.partition(" (")[1:] for item in items}
        shared = "".join(remarks.pop()) if len(items) > 1 and len(remarks) == 1 else ""
        shown = ", ".join(item.removesuffix(shared) for item in items[:SHOWN_MAX])
        more = f" and {len(items) - SHOWN_MAX} more" if len(items) > SHOWN_MAX else ""
        rows.append((label(key), shown + more + shared))
    return rows


def run_summary(manifest: dict[str, Any]) -> Any:
    """The end of a run as a Rich renderable: the decision first, then figures, then the commands."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    advice = advise(manifest)
    tone = _TONES[advice.tone]
    head = Text.assemble((f" {visible(advice.code, limit=60)} ", f"reverse {tone}"), "  ")
    head.append(visible(advice.headline, limit=200), style="bold")
    head.append("\n" + visible(advice.why, limit=400))
    head.append("\n" + advice.state, style="dim")
    figures = Table.grid(padding=(0, 3))
    for name, value in summary_figures(manifest):
        figures.add_row(Text(name, style="dim"), Text(visible(value, limit=100)))
    steps = Table.grid(padding=(0, 3))
    steps.add_column(no_wrap=True)  # a command is copied whole or not at all
    steps.add_column()
    for command, does in advice.steps:
        steps.add_row(Text(visible(command), style="bold"), Text(does, style="dim"))
    return Group(Panel(head, box=box.ROUNDED, border_style=tone), figures, Text(), steps)


def summary_figures(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The handful of numbers that a person wants first, as (name, text)."""
    run, cost, diff = manifest["run"], manifest["cost"], manifest["diff_summary"]
    progress = manifest["progress"] if isinstance(manifest["progress"], list) else []
    start, end = run["started_at_ms"], run["ended_at_ms"]
    failing = _at_the_start(manifest)
    if progress:
        failing = f"{progress[0]['failing_before']} → {progress[-1]['failing_after']}"
    refused = sum(item["count"] for item in manifest["denials"]["listed"]) + manifest["denials"]["more"]
    refused += sum(item["count"] for item in manifest["model_refusals"])
    return [
        ("failing tests", failing),
        ("cost", f"{money(cost['spent_micro_usd'])} of {money(cost['budget_micro_usd'])}"),
        ("files changed", str(diff["files_changed"]) if isinstance(diff, dict) else str(diff)),
        ("iterations", str(len(progress))),
        ("time", show_duration(end - start) if type(start) is int and type(end) is int else "not observed"),
        ("refused", str(refused)),
    ]


def _at_the_start(manifest: dict[str, Any]) -> str:
    """The baseline's failing tests, for a run that ended before its first iteration did."""
    preflight = manifest["preflight"]
    baseline = preflight.get("baseline") if isinstance(preflight, dict) else None
    failing = baseline.get("failing") if isinstance(baseline, dict) else None
    return f"{len(failing)} at the start" if isinstance(failing, list) else "not observed"
