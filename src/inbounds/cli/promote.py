"""`inbounds promote`: ask the gate to land a run's result; the answer goes into the run's journal."""

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds promote RUN       then, if it was a mistake: inbounds rollback RUN

The gate moves the branch only if the tests and security judges passed on exactly this tree. Exit code: 0 landed,
1 refused, with the reasons."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--to", "target", default="development", type=click.Choice(["development"]), help="The branch.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, target: str, as_json: bool) -> int:
    """Land RUN's result on TARGET of the trusted store, if every judge passed and nothing moved since."""
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    answer = decision.promote(home, run_id, target)
    if as_json:
        emit({"run_id": run_id, **answer})
    elif answer["outcome"] == "promoted":
        say(f"{run_id}: {target} is at {answer['commit'][:12]}; undo: inbounds rollback {run_id}")
    else:
        say(f"{run_id}: refused")
        for reason in answer["reasons"]:
            say(f"  {reason}")
    return 0 if answer["outcome"] == "promoted" else 1
