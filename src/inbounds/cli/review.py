"""`inbounds review`: what a run did on one screen, where its report is, and what to type next."""

import os
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, is_terminal, say

if TYPE_CHECKING:
    from inbounds.console.report import Evidence


EPILOG = """\b
  inbounds review            the latest run
  inbounds review RUN --open

Then inbounds approve and inbounds promote, or inbounds discard."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--open/--no-open", "show", default=None, help="Open the report in a browser (default: on a desktop).")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, show: bool | None, as_json: bool) -> int:
    """What RUN (the latest by default) did, what was refused, and what it needs from you."""
    from inbounds.console import report
    from inbounds.contracts.errors import EXIT_REFUSED, OperatorError
    from inbounds.run import recovery
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    run_dir = home.run(run_id)
    if not (run_dir / "journal.jsonl").exists():
        raise OperatorError(f"{run_id} has no journal yet", fix=f"inbounds status {run_id}")
    evidence = report.gather(run_dir)
    ended = any(record.kind == "run.finished" for record in evidence.records)
    path = run_dir / report.REPORT_NAME
    if not path.exists() and not recovery.locked(run_dir):
        report.render(run_dir)
    doubt = _doubt(evidence, ended=ended)
    if as_json:
        emit(_facts(run_id, evidence, doubt, ended=ended, report=str(path) if path.exists() else ""))
    else:
        _screen(evidence, doubt, ended=ended)
        say(f"report: {path}" if path.exists() else "report: comes with the end of the run")
    if path.exists() and not as_json and (show or (show is None and _desktop())):
        click.launch(str(path))
    return EXIT_REFUSED if doubt else 0


def _facts(run_id: str, evidence: "Evidence", doubt: list[str], *, ended: bool, report: str) -> dict[str, Any]:
    from inbounds.console.advice import advise

    advice = advise(evidence.manifest)
    return {
        "run_id": run_id,
        "ended": ended,
        "code": advice.code,
        "headline": advice.headline,
        "why": advice.why,
        "needs_decision": advice.needs_decision,
        "next": [{"command": command, "does": does} for command, does in advice.steps],
        "report": report,
        "verified": not doubt if ended or doubt else None,
        "checks": evidence.verification.as_json()["checks"],
        "manifest": evidence.manifest,
    }


def _doubt(evidence: "Evidence", *, ended: bool) -> list[str]:
    """What does not hold; of a run without its end only what no honest writer leaves: a broken or shortened chain."""
    failing = [check for check in evidence.verification.checks if not check.ok]
    if not ended:
        failing = [
            c
            for c in failing
            if (c.name == "chain" and ": torn:" not in c.detail) or c.detail.startswith(("truncated", "rewritten"))
        ]
    return [f"{check.name}: {check.detail}" for check in failing]


def _screen(evidence: "Evidence", doubt: list[str], *, ended: bool) -> None:
    from rich.console import Console

    from inbounds.console.terminal import run_summary

    console = Console(highlight=False)
    # A pipe has no width: commands stay on their line there, whole.
    (console if console.is_terminal else Console(highlight=False, width=160)).print(run_summary(evidence.manifest))
    if doubt:
        say("\nTHIS EVIDENCE DOES NOT HOLD, trust nothing above:")
        for line in doubt:
            say(f"  {line}")
    elif ended:
        say("\nverified: journal, anchors, manifest and contract hold")


def _desktop() -> bool:
    return is_terminal() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
