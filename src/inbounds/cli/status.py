"""`inbounds status`: what runs, what stopped, what waits; ends runs in order whose supervisor died."""

from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from pathlib import Path

    from inbounds.journal.chain import Record
    from inbounds.run.home import Home

RUNS_SHOWN = 20  # a screen; each costs one reading of its journal


EPILOG = """\b
  inbounds status            every run: what runs, what stopped, what waits for you
  inbounds status --json"""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--all", "every", is_flag=True, help=f"Every run, not only the latest {RUNS_SHOWN}.")
@click.option("--no-recover", is_flag=True, help="Only look: leave a run as it is whose supervisor died.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, every: bool, no_recover: bool, as_json: bool) -> int:
    """What runs, what stopped, what waits for you.

    A run whose supervisor died is ended in order here (evidence kept, STOP_HOST_FAILED); nothing resumes by itself.
    """
    from inbounds.run.home import open_home

    home = open_home()
    chosen = [home.find(run)] if run else list(home.runs())
    shown = chosen if every else chosen[:RUNS_SHOWN]
    facts = [_facts(home, run_id, recover=not no_recover) for run_id in shown]
    if as_json:
        emit({"home": str(home.path), "runs": facts, "not_shown": len(chosen) - len(shown)})
        return 0
    if not facts:
        say("no run yet; type: inbounds run . --goal … --accept tests/x.py::test_y")
        return 0
    _table(facts)
    if len(chosen) > len(shown):
        say(f"and {len(chosen) - len(shown)} older ones: inbounds status --all")
    for item in facts:
        for line in _remarks(item):
            say(line)
    return 0


def _facts(home: "Home", run_id: str, *, recover: bool) -> dict[str, Any]:
    """One run, from its journal and the operating system; what cannot be read is said under `problem`."""
    from inbounds.contracts.errors import InboundsError
    from inbounds.run import recovery

    records, broken = chain_of(home.run(run_id))
    facts: dict[str, Any] = {"run_id": run_id, "phase": "damaged", "recovered": False, "problem": broken}
    if broken:  # nothing is appended to a journal that does not hold
        return {**facts, **_told(records, run_id, "damaged")}
    try:
        facts["phase"] = recovery.phase(home, run_id)
        if facts["phase"] == "orphaned" and recover and not recovery.may_go_on(home, run_id):
            recovery.recover(home, run_id)
            facts.update(phase=recovery.phase(home, run_id), recovered=True)
            records, _ = chain_of(home.run(run_id))
    except (InboundsError, OSError) as fault:
        facts["problem"] = fault.one_line() if isinstance(fault, InboundsError) else str(fault)
    return {**facts, **_told(records, run_id, facts["phase"])}


def _told(records: list["Record"], run_id: str, phase: str) -> dict[str, Any]:
    from inbounds.console.advice import advise
    from inbounds.journal import manifest

    found = manifest.derive(records)
    advice = advise(found)
    ended = phase == "finished"
    steps = [step for step, _ in advice.steps] if ended else [f"inbounds logs {run_id}"]
    if phase in ("damaged", "orphaned"):
        first = [f"inbounds recover {run_id}", f"inbounds stop {run_id}"] if phase == "orphaned" else []
        steps = [*first, f"inbounds verify {run_id}", *steps]
    progress = found["progress"] if isinstance(found["progress"], list) else []
    return {
        "code": found["exit"]["code"] if ended else "",
        "why": found["exit"]["condition"] if ended else "",
        "thread": _text(found["run"].get("thread")),
        "agent": _text(found["agent"].get("name") if isinstance(found["agent"], dict) else found["agent"]),
        "started_at_ms": _whole(found["run"]["started_at_ms"]),
        "ended_at_ms": _whole(found["run"]["ended_at_ms"]),
        "iterations": len(progress),
        "spent_micro_usd": found["cost"]["spent_micro_usd"],
        "budget_micro_usd": _whole(found["cost"]["budget_micro_usd"]),
        "needs_decision": ended and advice.needs_decision,
        "headline": advice.headline if ended else "",
        "next": steps,
    }


def chain_of(run_dir: "Path") -> tuple[list["Record"], str]:
    """A run's records up to where they hold, and what is wrong with the rest, "" if nothing is.

    A torn last line is not wrong: somebody is writing it, or a recovery will set it aside.
    """
    from inbounds.journal import chain

    found: list[Record] = []
    try:
        for record in chain.linked(chain.records(run_dir / "journal.jsonl")):
            found.append(record)  # noqa: PERF402 - what stands before a break is shown
    except FileNotFoundError:
        return found, ""
    except chain.ChainError as broken:
        return found, "" if broken.rule == "torn" else f"the journal does not hold: {broken}"
    except OSError as fault:
        return found, f"the journal cannot be read: {fault.strerror}"
    return found, ""


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else "not observed"


def _table(facts: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from inbounds.console.plain import visible
    from inbounds.console.sentences import money

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "state", "thread", "rounds", "spent", "of", "waits for you"):
        table.add_column(name, no_wrap=True)
    for item in facts:
        code = str(item["code"] or item["phase"])
        tone = {"DONE": "green", "running": "cyan", "starting": "cyan"}.get(code, "yellow")
        row = (
            item["run_id"],
            Text(visible(code), tone),
            Text(visible(str(item["thread"]), limit=30)),
            str(item["iterations"]),
            money(item["spent_micro_usd"]),
            "-" if item["budget_micro_usd"] is None else money(item["budget_micro_usd"]),
            "yes" if item["needs_decision"] else "",
        )
        table.add_row(*row)
    console = Console(highlight=False)
    # A pipe has no width: lines are for grep there, never cut.
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)


def _remarks(item: dict[str, Any]) -> list[str]:
    run_id = item["run_id"]
    if item["recovered"]:
        return [f"{run_id}: its supervisor had died; the run was ended ({item['code']}), its evidence is kept"]
    if item["problem"]:
        return [f"{run_id}: {item['problem']}", f"  type: inbounds verify {run_id}"]
    if item["phase"] == "orphaned":
        return [f"{run_id}: its supervisor died; inbounds recover {run_id} goes on, inbounds stop {run_id} ends it"]
    return []
