"""`inbounds recover`: take up runs whose supervisor died, after a reboot for instance (E16)."""

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds recover           every run of this state directory whose supervisor is dead
  @reboot inbounds recover   in a crontab: runs outlive a reboot

Policy says whether such a run goes on (conduct.recovery); one that was stopping is brought to its end. What the agent
left is judged as it stands. Exit code: 0, or 1 where a run could not be taken up."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, as_json: bool) -> int:
    """Go on with RUN, or with every run whose supervisor died; returns once their new supervisors run."""
    from inbounds.contracts.errors import EXIT_REFUSED, InboundsError, RefusedError
    from inbounds.run import onward, recovery
    from inbounds.run.home import open_home

    home = open_home()
    chosen = [home.find(run)] if run else list(home.runs())
    orphans = [run_id for run_id in chosen if recovery.phase(home, run_id) == "orphaned"]
    if run and not orphans:
        raise RefusedError(f"{chosen[0]} needs no recovery: it is {recovery.phase(home, chosen[0])}",
                           fix=f"inbounds status {chosen[0]}")  # fmt: skip
    taken: list[dict[str, object]] = []
    for run_id in orphans:
        try:
            started = onward.start(home, run_id, "recover")
            taken.append({"run_id": run_id, "pid": started.process.pid, "problem": ""})
        except InboundsError as fault:
            taken.append({"run_id": run_id, "pid": 0, "problem": fault.one_line()})
    if as_json:
        emit({"recovered": taken})
    else:
        for item in taken:
            say(f"{item['run_id']}: {item['problem'] or 'goes on; type: inbounds logs ' + str(item['run_id'])}")
        if not taken:
            say("no run needs recovery")
    return EXIT_REFUSED if any(item["problem"] for item in taken) else 0
