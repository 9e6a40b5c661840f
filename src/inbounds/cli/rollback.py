"""`inbounds rollback`: undo what a run landed, with one command (I2)."""

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds rollback RUN

History stays: a new commit restores what was there before. Unlanded work is thrown away by inbounds discard."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, as_json: bool) -> int:
    """Undo RUN's landed work on development by a commit that takes it back; history stays."""
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    answer = decision.roll_back(home, run_id)
    if as_json:
        emit({"run_id": run_id, **answer})
    elif answer["outcome"] == "rolled_back":
        say(f"{run_id}: rolled back; development is at {answer['commit'][:12]}")
    else:
        say(f"{run_id}: refused")
        for reason in answer["reasons"]:
            say(f"  {reason}")
    return 0 if answer["outcome"] == "rolled_back" else 1
