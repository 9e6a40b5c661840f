"""`inbounds review`: what a run did on one screen, where its report is, and what to type next."""

import os
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, is_terminal, say

if TYPE_CHECKING:
    from inbounds.console.report import Evidence


@click.command()
@click.argument("run", required=False)
@click.option("--open/--no-open", "show", default=None, help="Open the report in a browser (default: on a desktop).")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, show: bool | None, as_json: bool) -> int:
    """What RUN (the latest by default) did, what was refused, and what it needs from you."""
    from inbounds.console import report
    from inbounds.contracts.errors import EXIT_REFUSED
    from inbounds.run import recovery
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    run_dir = home.run(run_id)
    evidence = report.gather(run_dir)
    ended = any(record.kind == "run.finished" for record in evidence.records)
    path = run_dir / report.REPORT_NAME
    if not path.exists() and not recovery.locked(run_dir):
        report.render(run_dir)
    tampered = ended and not evidence.verification.ok
    if as_json:
        emit(_facts(run_id, evidence, ended=ended, report=str(path) if path.exists() else ""))
    else:
        _screen(evidence, ended=ended)
        say(f"report: {path}" if path.exists() else "report: comes with the end of the run")
    if path.exists() and not as_json and (show or (show is None and _desktop())):
        click.launch(str(path))
    return EXIT_REFUSED if tampered else 0


def _facts(run_id: str, evidence: "Evidence", *, ended: bool, report: str) -> dict[str, Any]:
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
        "verified": evidence.verification.ok if ended else None,
        "checks": evidence.verification.as_json()["checks"] if ended else [],
        "manifest": evidence.manifest,
    }


def _screen(evidence: "Evidence", *, ended: bool) -> None:
    from rich.console import Console

    from inbounds.console.terminal import run_summary

    console = Console(highlight=False)
    # A pipe has no width: commands stay on their line there, whole.
    (console if console.is_terminal else Console(highlight=False, width=160)).print(run_summary(evidence.manifest))
    failing = [check for check in evidence.verification.checks if not check.ok]
    if ended and failing:
        say("\nTHIS EVIDENCE DOES NOT HOLD, trust nothing above:")
        for check in failing:
            say(f"  {check.name}: {check.detail}")
    elif ended:
        say("\nverified: journal, anchors, manifest and contract hold")


def _desktop() -> bool:
    return is_terminal() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
