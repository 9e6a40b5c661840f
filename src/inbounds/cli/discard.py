"""`inbounds discard`: throw unlanded work away: workspace, quarantine, agent branch; the evidence stays."""

import click

from inbounds.cli.consent import consent
from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds discard RUN              its workspace and agent branch; journal, manifest and report stay
  inbounds discard RUN --evidence   all of it"""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--evidence", is_flag=True, help="Delete journal, manifest and report as well.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, yes: bool, evidence: bool, as_json: bool) -> int:
    """Throw RUN's unlanded work away and free its disk space."""
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    what = "its workspace, branch AND evidence" if evidence else "its workspace and branch (the evidence stays)"
    question = f"Delete of {run_id}: {what}?"
    if not consent(question, yes=yes, instead=f"inbounds discard {run_id}", purpose="to ask"):
        return 1
    facts = decision.discard(home, run_id, evidence=evidence)
    if as_json:
        emit(facts)
    else:
        say(f"{run_id}: {facts['bytes'] >> 10} KiB freed")
    return 0
