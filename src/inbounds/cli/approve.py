"""`inbounds approve`: a person's signature over the exact tree of a run's result, so that it may land."""

import click

from inbounds.cli.consent import consent
from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds review RUN        look first
  inbounds approve RUN --note "read the diff, the rounding is right"
  inbounds promote RUN

The signature is over the exact tree, the plan and the journal's head: a later change voids it."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--yes", is_flag=True, help="Sign without asking again; you have reviewed the run.")
@click.option("--note", default="", help="Your judgement, kept with the signature.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, yes: bool, note: str, as_json: bool) -> int:
    """Sign that RUN's result may land on a protected branch; any later change voids it."""
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    asked = decision.approval(home, run_id, note)
    if not as_json:
        say(f"{run_id}: you approve tree {asked['tree'][:12]} of plan {asked['plan_id']} ({asked['stop_code']})")
    if not consent("Sign with your SSH key?", yes=yes, instead=f"inbounds approve {run_id}"):
        return 1
    kept = decision.sign(home, run_id, asked)
    if as_json:
        emit(kept)
    else:
        say(f"signed by {kept['operator']}; type: inbounds promote {run_id}")
    return 0
