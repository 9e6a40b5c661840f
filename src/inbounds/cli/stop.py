"""`inbounds stop`: ask a run's supervisor to stop and say what happened; with --all an incident: every run at once."""

import os
import time
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, say
from inbounds.contracts.errors import EXIT_REFUSED, HostError, OperatorError

if TYPE_CHECKING:
    from inbounds.run.home import Home
    from inbounds.run.incident import Incident

WAIT_S = 30.0  # the stop sequence takes about a second; a snapshot of a large tree some more

EPILOG = """\b
  inbounds stop              the latest run
  inbounds stop --all --why "a key leaked"

The stop is in order: doors closed, processes ended, evidence kept. --all is for an incident: every run on this host is
frozen at once, whichever state directory it is in; journals are sealed, work is quarantined, and an incident record
says what to do next. Going on then takes the approvals that policy names. Exit code: 0 stopped, 1 nothing to stop, or
not everything did."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--all", "every", is_flag=True, help="An incident: stop every run on this host, quarantine, record.")
@click.option("--here", is_flag=True, help="With --all: only the runs of this state directory.")
@click.option("--why", default="a person asked", help="The reason, for the journal.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, every: bool, here: bool, why: str, as_json: bool) -> int:
    """Stop RUN (the latest by default), preserving the evidence."""
    from inbounds.cli.who import who
    from inbounds.run.home import open_home

    home = open_home()
    if every and run:
        raise OperatorError("both a run and --all", expected="one of them")
    if here and not every:
        raise OperatorError("--here without --all", expected="both, or a run")
    if every:
        return _incident(home, who(), why, here=here, as_json=as_json)
    item = _stop(home, home.find(run), who(), why)
    if as_json:
        emit({"stopped": [item]})
    else:
        say(f"{item['run_id']}: {item['code']} ({item['why']})")
    return 0


def _stop(home: "Home", run_id: str, name: str, why: str) -> dict[str, Any]:
    from inbounds.run import recovery, requests
    from inbounds.run.incident_facts import Tail

    asked = time.time_ns() // 1_000_000
    if recovery.phase(home, run_id) == "running":
        requests.ask_stop(home.run(run_id), who=name, why=why)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        phase = recovery.phase(home, run_id)
        if phase == "orphaned":
            recovery.recover(home, run_id)
        elif phase == "finished":
            tail = Tail(home.run(run_id))
            tail.look()
            return {**recovery.ending(home, run_id), **_times(asked, tail.times)}
        time.sleep(0.02)
    ended = _end_jails(home, run_id)
    raise HostError(f"{run_id} did not stop within {WAIT_S:.0f} s{ended}", fix=f"inbounds logs {run_id}")


def _end_jails(home: "Home", run_id: str) -> str:
    """A supervisor that does not answer keeps nothing running: its jails are frozen and killed from here; in words."""
    from inbounds.run import living

    mine = [one for one in living.supervisors() if one.run_dir == home.run(run_id) and one.uid == os.geteuid()]
    living.freeze(mine)
    ended = living.kill(mine)
    return f"; {ended} of its jails were ended, and its supervisor lives" if mine else ""


def _times(asked: int, times: dict[str, int]) -> dict[str, int | None]:
    """Unix milliseconds: when it was asked, and when what of the stop stood in the journal."""
    names = ("lease_closed_at_ms", "frozen_at_ms", "sealed_at_ms", "ended_at_ms")
    return {"asked_at_ms": asked, **{name: times.get(name) for name in names}}


def _incident(home: "Home", name: str, why: str, *, here: bool, as_json: bool) -> int:
    # Nothing is loaded before the freeze that it does not need: what comes later loads while supervisors work.
    from inbounds.run import incident, living

    living.hurry()
    found = [one for one in living.supervisors() if not (here and incident.elsewhere(home, one))]
    made = incident.declare(home, who=name, why=why, found=found, sealed=_say_nothing if as_json else _sealed)
    if as_json:
        emit(_facts(made))
    elif not made.cases and not made.others:
        say("nothing runs")
    else:
        for case in made.cases:
            stop = case.tail.stop
            say(f"{case.run_id}: {stop.data['code'] if stop else 'NOT STOPPED'} ({case.problem or made.why})")
        for one in made.others:
            say(f"process {one['pid']} of uid {one['uid']}: {one['outcome']}")
        for problem in made.problems:
            say(f"problem: {problem}")
        say(f"read this: {made.place / 'incident.md'}")
    return 0 if made.ok else EXIT_REFUSED


def _say_nothing(_: "Incident") -> None:
    return


def _sealed(made: "Incident") -> None:
    asked, written = made.times["asked_at_ms"], made.times["recorded_at_ms"]
    if asked and written and made.cases:
        say(f"{len(made.cases)} run(s) frozen, sealed and on record {written - asked} ms after you asked{os.linesep}"
            f"  {made.place / 'incident.md'}")  # fmt: skip


def _facts(made: "Incident") -> dict[str, Any]:
    stopped = [
        {
            "run_id": case.run_id,
            "code": str(case.tail.stop.data["code"]) if case.tail.stop else "",
            "why": str(case.tail.stop.data["why"]) if case.tail.stop else case.problem,
            "frozen": case.how,
            **_times(made.times["asked_at_ms"] or 0, case.tail.times),
        }
        for case in made.cases
    ]
    return {
        "incident": made.incident,
        "record": str(made.place / "incident.json") if made.times["recorded_at_ms"] else "",
        **made.times,
        "stopped": stopped,
        "others": made.others,
        "problems": made.problems,
    }
