"""`inbounds run`: bind, show, sign, start, follow. The run itself is the supervisor's."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.flags import work_flags
from inbounds.cli.output import can_ask, is_terminal, say
from inbounds.console.plain import visible
from inbounds.contracts.errors import OperatorError

if TYPE_CHECKING:
    from inbounds.run.home import Home
    from inbounds.run.launch import Started
    from inbounds.run.order import Ordered

EPILOG = """\b
A goal, the test that shows it, dollars and time at most:
  inbounds run . --goal "Charge a surcharge" --accept tests/test_x.py::test_y --budget 5 --for 30m
The plan in the thread's .inbounds/ (requirements.yaml, WORK_PLAN.json):
  inbounds run billing --agent claude
In CI, where nobody can sign: sign once, then run with the same flags:
  inbounds plan sign . --goal … --accept …
  inbounds run . --goal … --accept … --yes --json

It runs HEAD; your work tree is never touched. The first Ctrl-C stops the run and keeps its evidence, the second
leaves it to itself. Exit code: 0 done and kept, 1 refused or stopped, 100 a mistake of yours, 111 this host's."""


@click.command(epilog=EPILOG)
@work_flags
@click.option("--yes", is_flag=True, help="Do not ask; only for a plan that is signed already.")
@click.option("--detach", is_flag=True, help="Give the terminal back; inbounds logs --follow shows the run.")
@click.option("--json", "as_json", is_flag=True, help="Stream the run's events as JSON lines.")
def command(directory: Path, as_json: bool, yes: bool, detach: bool, **flags: Any) -> int:
    """Run an agent on HEAD of the repository, within the bounds of the thread in DIRECTORY."""
    from inbounds.run import authorize, launch
    from inbounds.run.home import open_home
    from inbounds.run.order import Order, order

    aside = as_json or not is_terminal()  # stdout is for events alone
    if not yes and not can_ask(aside=as_json):
        raise OperatorError(
            "nobody is here to sign",
            expected="a terminal, or --yes with a signed plan",
            fix="inbounds plan sign … with the same flags, then run --yes",
        )
    home = open_home()
    made = order(home, Order.from_flags(directory, **flags), say=lambda line: say(line, aside=aside))
    if not yes or is_terminal():
        show(made, aside=as_json)
    else:
        _remarks(made, aside=True)
    ask = None if yes else lambda: _ask(aside=as_json)
    contract = authorize.authorize(home, made.contract, ask=ask, extra=made.signature_file)
    run_dir = launch.prepare(home, contract, made.blast, made.settings)
    started = launch.start(home, run_dir, made.upstreams())
    if detach:
        facts = {"run_id": contract.run_id, "run_dir": str(run_dir), "pid": started.process.pid}
        say(json.dumps(facts) if as_json else f"{contract.run_id} runs; type: inbounds logs {contract.run_id} --follow")
        return 0
    return follow(home, started, as_json=as_json)


def follow(home: "Home", started: "Started", *, as_json: bool, since: int = 0) -> int:
    """Print events until the run is over; the first Ctrl-C asks it to stop, and goes on showing."""
    from inbounds.console.terminal import event_line
    from inbounds.journal.chain import Record
    from inbounds.journal.links import CHECKPOINT
    from inbounds.run import follow as following
    from inbounds.run import recovery

    with _interruptible(started):
        for raw in following.follow(started.run_dir, lambda: started.process.poll() is None, since=since):
            if as_json:
                print(json.dumps(raw), flush=True)
            elif raw["kind"] != CHECKPOINT:  # it signs what came before: evidence, no news
                print(event_line(Record(**raw)), flush=True)
        started.process.wait()
    if recovery.phase(home, started.run_dir.name) != "finished":
        recovery.recover(home, started.run_dir.name)
    return _end(home, started.run_dir.name, as_json=as_json)


@contextmanager
def _interruptible(started: "Started") -> Iterator[None]:
    """The first Ctrl-C stops the run in order; from then on a second one leaves, as Ctrl-C does otherwise."""
    from inbounds.cli.who import who
    from inbounds.run import requests

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        requests.ask_stop(started.run_dir, who=who(), why="interrupted at the terminal")
        say("inbounds: stopping the run; its evidence is kept", aside=True)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(home: "Home", run_id: str, *, as_json: bool) -> int:
    from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED
    from inbounds.run import launch, promotion, recovery

    ending = recovery.ending(home, run_id)
    aside = as_json or not is_terminal()
    run_dir = home.run(run_id)
    say("", aside=aside)
    say(f"{run_id}: {ending['code']} ({ending['why']})", aside=aside)
    say(f"  report: {run_dir / 'report.html'}", aside=aside)
    if promotion.standing(run_dir).commit:
        contract = launch.read_contract(run_dir)
        say(f"  take:   git fetch {contract.store} {contract.branch}", aside=aside)
    say(f"  type:   inbounds review {run_id}", aside=aside)
    return EXIT_KEPT if ending["code"] == "DONE" else EXIT_REFUSED


def show(made: "Ordered", *, aside: bool) -> None:
    """Contract and blast radius on one screen, on stderr where stdout is for machines."""
    from rich.console import Console

    from inbounds.console.terminal import contract_screen

    Console(stderr=aside, highlight=False).print(contract_screen(made.summary, made.blast))
    _remarks(made, aside=aside)


def _remarks(made: "Ordered", *, aside: bool) -> None:
    for path in made.uncommitted:
        say(f"stays out (not committed): {visible(path)}", aside=aside)
    for remark in made.remarks:
        say(f"vague: {remark}", aside=aside)


def _ask(*, aside: bool) -> bool:
    answer = click.prompt(
        "Enter signs this contract with your SSH key and starts the run (n leaves it)",
        default="",
        show_default=False,
        err=aside,
    )
    return str(answer).strip().lower() in ("", "y", "yes")
