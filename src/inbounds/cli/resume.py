"""`inbounds resume`: show why a run stopped and take the signature without which nothing goes on (E14)."""

import click

from inbounds.cli.consent import consent
from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds resume RUN --note "the budget was too small"

A stopped run never goes on by itself. This records, signed, that you saw why it stopped; then start a follow-up run."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--yes", is_flag=True, help="Sign without asking again.")
@click.option("--note", default="", help="Why it may go on.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, yes: bool, note: str, as_json: bool) -> int:
    """Re-authorize the work of RUN after its stop; says how to start the follow-up run from its last commit."""
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    asked = decision.reauthorization(home, run_id, note)
    if not as_json:
        say(f"{run_id} stopped with {asked['stop_code']}: {asked['why']}")
        say(f"  what stands: {asked['commit'][:12] or 'no commit'} on {asked['branch']}")
    if not consent("Re-authorize this work with your SSH key?", yes=yes, instead=f"inbounds resume {run_id}"):
        return 1
    kept = decision.sign(home, run_id, asked)
    if as_json:
        emit(kept)
    else:
        say(f"re-authorized by {kept['operator']}.")
        if asked["commit"]:
            say(f"  take what stands:   git fetch {asked['store']} {asked['branch']}")
        say("  start a new run:    inbounds run … (a stopped run never goes on by itself)")
    return 0
