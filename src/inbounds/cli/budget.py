"""`inbounds budget`: caps, spend and reservations, from the gateway's ledger; what is in doubt counts as spent."""

from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.gateway.ledger import Totals

ROWS_SHOWN = 30  # a screen
WARN_PERCENT, ESCALATE_PERCENT = 70, 90  # G7, G8


EPILOG = """\b
  inbounds budget            what this month's runs spent, reserved and may still spend
  inbounds budget --json"""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--month", metavar="YYYY-MM", help="Threads and the organization in this month (default: all).")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, month: str | None, as_json: bool) -> None:
    """Caps, spend and reservations: of RUN, or of every run, thread and month, newest first."""
    import re

    from inbounds.contracts.errors import OperatorError
    from inbounds.gateway.ledger import spend
    from inbounds.run.home import open_home

    if month and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise OperatorError(f"{month!r} is no month", where="--month", expected="such as 2026-11")
    home = open_home()
    if run:
        run_id = home.find(run)
        found = spend(home.ledger, kind="run", name=run_id)
    else:
        found = spend(home.ledger, month=month)
    rows = [_facts(totals) for totals in found]
    if as_json:
        emit({"ledger": str(home.ledger), "rows": rows})
    elif rows:
        _table(rows[:ROWS_SHOWN])
        if len(rows) > ROWS_SHOWN:
            say(f"and {len(rows) - ROWS_SHOWN} older ones: inbounds budget --json")
    else:
        say("nothing was spent yet" if not run else f"{run_id} asked no model for anything")


def _facts(totals: "Totals") -> dict[str, Any]:
    cap = totals.cap_micro_usd
    spent = totals.spent_micro_usd
    percent = None if not cap else spent * 100 // cap
    return {
        "kind": totals.kind,
        "name": totals.name,
        "month": totals.month,
        "cap_micro_usd": cap,
        "spent_micro_usd": spent,
        "settled_micro_usd": totals.settled_micro_usd,
        "reserved_micro_usd": totals.reserved_micro_usd,
        "in_doubt_micro_usd": totals.unknown_micro_usd,
        "left_micro_usd": None if cap is None else max(0, cap - spent),
        "percent": percent,
        "state": _state(percent),
        "tokens": totals.spent_tokens,
        "cap_tokens": totals.cap_tokens,
        "requests": totals.requests,
        "tool_calls": totals.tool_calls,
    }


def _state(percent: int | None) -> str:
    if percent is None:
        return "no cap"
    if percent >= 100:  # noqa: PLR2004 - percent
        return "spent"
    if percent >= ESCALATE_PERCENT:
        return "escalation"
    return "warning" if percent >= WARN_PERCENT else "fine"


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from inbounds.console.plain import visible
    from inbounds.console.sentences import money

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("what", "name", "month"):
        table.add_column(name, no_wrap=True)
    for name in ("spent", "of", "reserved", "in doubt", "requests", "%"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    tones = {"fine": "green", "warning": "yellow", "escalation": "red", "spent": "bold red"}
    for row in rows:
        table.add_row(
            row["kind"],
            Text(visible(row["name"], limit=40)),
            row["month"],
            money(row["spent_micro_usd"]),
            "no cap" if row["cap_micro_usd"] is None else money(row["cap_micro_usd"]),
            money(row["reserved_micro_usd"]),
            money(row["in_doubt_micro_usd"]),
            str(row["requests"]),
            "" if row["percent"] is None else str(row["percent"]),
            Text(row["state"], tones.get(row["state"], "dim")),
        )
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)
