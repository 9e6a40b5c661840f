"""`inbounds run`: bind, show, sign, start, follow. The run itself is the supervisor's."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from inbounds.cli.output import is_terminal, say
from inbounds.contracts.errors import OperatorError


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--goal", default="", help="What the agent shall reach; drafts a requirement and a plan.")
@click.option("--accept", multiple=True, metavar="TEST", help="A test that must pass, e.g. tests/x.py::test_y.")
@click.option("--target", "targets", multiple=True, metavar="GLOB", help="Where it may write (default: the thread).")
@click.option("--agent", default="", help="reference, claude, codex, …")
@click.option("--model", default="", help="The model, as the provider names it.")
@click.option("--budget", default="", metavar="USD", help="Dollars at most; narrows the policy's.")
@click.option("--for", "duration", default="", metavar="TIME", help="Wall-clock time at most, e.g. 30m.")
@click.option("--iterations", type=int, help="Iterations at most.")
@click.option("--yes", is_flag=True, help="Do not ask; only for a plan that is signed already.")
@click.option("--detach", is_flag=True, help="Give the terminal back; inbounds logs --follow shows the run.")
@click.option("--json", "as_json", is_flag=True, help="Stream the run's events as JSON lines.")
def command(directory: Path, as_json: bool, yes: bool, detach: bool, **flags: Any) -> int:
    """Run an agent on HEAD of the repository, within the bounds of the thread in DIRECTORY."""
    from inbounds.run import authorize, launch
    from inbounds.run.home import open_home
    from inbounds.run.order import Order, order

    home = open_home()
    made = order(home, Order.from_flags(directory, **flags))
    quiet = as_json or not is_terminal()
    if not as_json:
        _show(made)
    if not yes and not is_terminal():
        raise OperatorError(
            "nobody is here to sign",
            expected="a terminal, or --yes with a signed plan",
            fix="inbounds plan sign … with the same flags, then run --yes",
        )
    contract = authorize.authorize(home, made.contract, ask=None if yes else _ask, extra=made.signature_file)
    run_dir = launch.prepare(home, contract, made.blast, made.settings)
    started = launch.start(home, run_dir, made.upstreams())
    if detach:
        facts = {"run_id": contract.run_id, "run_dir": str(run_dir), "pid": started.process.pid}
        say(json.dumps(facts) if as_json else f"{contract.run_id} runs; type: inbounds logs {contract.run_id} --follow")
        return 0
    return follow(home, started, as_json=as_json, quiet=quiet)


def follow(home: Any, started: Any, *, as_json: bool, quiet: bool) -> int:
    """Print events until the run is over; the first Ctrl-C asks it to stop, and goes on showing."""
    import getpass

    from inbounds.console.terminal import event_line
    from inbounds.journal.chain import Record
    from inbounds.run import follow as following
    from inbounds.run import recovery, requests

    run_id = started.run_dir.name
    records = following.follow(started.run_dir, lambda: started.process.poll() is None)
    while True:
        try:
            for raw in records:
                print(json.dumps(raw) if as_json else event_line(Record(**raw)), flush=True)
            break
        except KeyboardInterrupt:
            sys.stderr.write("inbounds: stopping the run; its evidence is kept\n")
            requests.ask_stop(started.run_dir, who=getpass.getuser(), why="interrupted at the terminal")
            offset = sum(1 for _ in ())
            records = following.follow(started.run_dir, lambda: started.process.poll() is None, since=offset)
    started.process.wait()
    if recovery.phase(home, run_id) != "finished":
        recovery.recover(home, run_id)
    return _end(home, run_id, as_json=as_json, quiet=quiet)


def _end(home: Any, run_id: str, *, as_json: bool, quiet: bool) -> int:  # noqa: ARG001 - one look for both terminals
    from inbounds.run import recovery
    from inbounds.run.home import Home

    assert isinstance(home, Home)
    ending = recovery.ending(home, run_id)
    if not as_json:
        say("")
        say(f"{run_id}: {ending['code']} ({ending['why']})")
        say(f"  report: {home.run(run_id) / 'report.html'}")
        say(f"  type:   inbounds review {run_id}")
    return 0 if ending["code"] == "DONE" else 1


def _show(made: Any) -> None:
    from rich.console import Console

    from inbounds.console.terminal import contract_screen

    Console().print(contract_screen(made.summary, made.blast))
    for path in made.uncommitted:
        say(f"  stays out (not committed): {path}")
    for remark in made.remarks:
        say(f"  vague: {remark}")


def _ask() -> bool:
    answer = click.prompt(
        "Enter signs this contract with your SSH key and starts the run (n leaves it)", default="", show_default=False
    )
    return str(answer).strip().lower() in ("", "y", "yes")
