"""`inbounds stop`: ask a run's supervisor to stop, wait until it has, and say what happened."""

import time
from typing import TYPE_CHECKING

import click

from inbounds.cli.output import emit, say
from inbounds.contracts.errors import EXIT_REFUSED, HostError, OperatorError

if TYPE_CHECKING:
    from inbounds.run.home import Home

WAIT_S = 30.0  # the stop sequence takes about a second; a snapshot of a large tree some more

EPILOG = """\b
  inbounds stop              the latest run
  inbounds stop --all --why "the release is out"

The stop is in order: doors closed, processes ended, evidence kept. Exit code: 0 stopped, 1 nothing to stop."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--all", "every", is_flag=True, help="Stop every run of this state directory.")
@click.option("--why", default="a person asked", help="The reason, for the journal.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, every: bool, why: str, as_json: bool) -> int:
    """Stop RUN (the latest by default), preserving the evidence."""
    from inbounds.cli.who import who
    from inbounds.run import recovery, requests
    from inbounds.run.home import open_home

    home = open_home()
    if every and run:
        raise OperatorError("both a run and --all", expected="one of them")
    chosen = [r for r in home.runs() if recovery.phase(home, r) != "finished"] if every else [home.find(run)]
    for run_id in chosen:
        if recovery.phase(home, run_id) == "running":
            requests.ask_stop(home.run(run_id), who=who(), why=why)
    stopped = [_wait(home, run_id) for run_id in chosen]
    if as_json:
        emit({"stopped": stopped})
    else:
        for item in stopped:
            say(f"{item['run_id']}: {item['code']} ({item['why']})")
        if not stopped:
            say("nothing runs")
    return 0 if stopped or every else EXIT_REFUSED


def _wait(home: "Home", run_id: str) -> dict[str, str]:
    from inbounds.run import recovery

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        phase = recovery.phase(home, run_id)
        if phase == "orphaned":
            recovery.recover(home, run_id)
        elif phase == "finished":
            return recovery.ending(home, run_id)
        time.sleep(0.05)
    raise HostError(f"{run_id} did not stop within {WAIT_S:.0f} s", fix=f"inbounds logs {run_id}")
