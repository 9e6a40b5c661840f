"""What a run looks like in a terminal: the contract on one screen, a summary, one plain line per record.

Everything passes through `visible`. Rich is imported where it is used, so that `--help` stays fast.
"""

from datetime import UTC, datetime
from typing import Any

from inbounds.console.advice import advise
from inbounds.console.plain import visible
from inbounds.contracts.units import show_duration, show_usd
from inbounds.journal.chain import Record

LINE_CHARS_MAX = 400
_TONES = {"good": "green", "warn": "yellow", "bad": "red"}
_LABELS = {
    "can_write": "may write",
    "cannot_write": "may not write",
    "can_read": "may read",
    "cannot_read": "may not read",
    "network": "network",
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


def money(amount: object) -> str:
    """Micro-dollars as dollars with at least cents; whatever is no integer as it is."""
    return f"${show_usd(amount)}" if type(amount) is int else str(amount)


def clock(at_ms: int) -> str:
    """Unix milliseconds as UTC time of day."""
    return datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%H:%M:%S")


def event_line(record: Record) -> str:
    """One record as one line: time, kind, what it says; never more than LINE_CHARS_MAX characters."""
    text = _SAYS[record.kind](record.data) if record.kind in _SAYS else _pairs(record.data)
    return f"{clock(record.at_ms)}  {record.kind:<19} {visible(text, limit=LINE_CHARS_MAX)}".rstrip()


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


def _pairs(data: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in data.items() if not isinstance(value, (dict, list)))


def _get(data: dict[str, Any], *keys: str) -> str:
    return " ".join(str(data[key]) for key in keys if data.get(key) not in (None, ""))


def _usage(data: dict[str, Any]) -> str:
    tokens = f"{data.get('input_tokens', 0)} in, {data.get('output_tokens', 0)} out"
    spent = money(data.get("spent_micro_usd", 0))
    return f"{data.get('model', '')}: {tokens}, {money(data.get('cost_micro_usd', 0))} (run: {spent})"


def _iteration(data: dict[str, Any]) -> str:
    moved = "progress" if data.get("progress") else "no progress"
    return f"{data.get('n')}: failing {data.get('failing_before')} → {data.get('failing_after')}, {moved}"


def _preflight(data: dict[str, Any]) -> str:
    reasons = "; ".join(str(reason) for reason in data.get("reasons", []))
    return f"level {data.get('level')}, ready" if data.get("ok") else f"refused: {reasons}"


def _promotion(data: dict[str, Any]) -> str:
    reasons = "; ".join(str(reason) for reason in data.get("reasons", []))
    return f"{data.get('target')}: {data.get('outcome')}" + (f" ({reasons})" if reasons else "")


_SAYS: dict[str, Any] = {
    "run.accepted": lambda d: f"{d.get('run_id')} {d.get('plan_id')} for {d.get('operator')}",
    "preflight.finished": _preflight,
    "iteration.started": lambda d: f"{d.get('n')}",
    "iteration.finished": _iteration,
    "jail.started": lambda d: _get(d, "role", "n"),
    "jail.exited": lambda d: f"{d.get('role')} {d.get('n')}: {d.get('reason')} after {d.get('ms', 0)} ms",
    "model.usage": _usage,
    "model.refused": lambda d: _get(d, "status", "reason", "model", "detail"),
    "denial": lambda d: ("SENSITIVE " if d.get("sensitive") else "") + _get(d, "kind", "what", "detail"),
    "tool.called": lambda d: _get(d, "tool", "outcome"),
    "snapshot.taken": lambda d: f"{d.get('n')}: {len(d.get('changes', []))} changes, tree {str(d.get('tree'))[:12]}",
    "verdict": lambda d: f"{d.get('judge')}: {d.get('outcome')}, {d.get('summary')}",
    "commit.made": lambda d: f"{str(d.get('commit'))[:12]} on {d.get('branch')}",
    "stop.decided": lambda d: f"{d.get('code')}: {d.get('why')} ({d.get('disposal')})",
    "stop.step": lambda d: f"{d.get('step')}: {'ok' if d.get('ok') else 'FAILED'} {d.get('detail', '')}",
    "promotion.decided": _promotion,
    "operator.decision": lambda d: _get(d, "kind", "operator"),
    "notice.sent": lambda d: f"{d.get('channel')}: {'sent' if d.get('ok') else d.get('detail')}",
    "agent.said": lambda d: f"(untrusted) {d.get('text')}",
    "run.finished": lambda d: f"{d.get('code')}, exit {d.get('exit')}",
}
