"""`inbounds host`: install, remove and show the root service that hardened runs need; free a slot that no run knows."""

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.host.install import CannotError, Places

EPILOG = """\b
  sudo inbounds host install --operator $USER    once; nobody needs root afterwards
  inbounds host status                           its slots, too, and what frees them
  inbounds host release 3                        what a slot keeps that no run knows is destroyed
  sudo inbounds host uninstall                   leaves nothing behind

The service starts hardened jails for members of the group inbounds-operators. It is told integers and descriptors only,
and runs from a copy of its own that root alone can change."""


@click.group(epilog=EPILOG)
def command() -> None:
    """Install, remove or show the service that hardened runs need."""


@command.command("install")
@click.option("--operator", "operators", multiple=True, metavar="USER", help="Who may use it; may be repeated.")
@click.option("--force", is_flag=True, help="Replace it even though runs live that this ends.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def install(operators: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Make this host able to run hardened. Repeat it after an upgrade, or to add an operator."""
    chosen = list(operators) or [name for name in [os.environ.get("SUDO_USER", "")] if name not in ("", "root")]
    _root_only("install", chosen or ["USER"])
    from inbounds.host.install import CannotError, Places
    from inbounds.host.install import install as put

    try:
        facts = put(Places(), chosen, force=force)
    except CannotError as error:
        _host_fault(error)
    _show(facts, as_json=as_json)
    if chosen and not as_json:
        say(f"{', '.join(chosen)}: log in again for the group to take effect, or type: newgrp inbounds-operators")


@command.command("uninstall")
@click.option("--force", is_flag=True, help="Kill runs that live, and destroy what undecided ones wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def uninstall(force: bool, as_json: bool) -> None:
    """Remove the service, its users, groups, mounts, rules and directories."""
    _root_only("uninstall", [])
    from inbounds.host.install import CannotError, Places
    from inbounds.host.install import uninstall as remove

    try:
        facts = remove(Places(), force=force)
    except CannotError as error:
        _host_fault(error)
    if as_json:
        emit(facts)
    else:
        say(f"removed: {facts['slots']} slots, the service, its copy and its directories")


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def status(as_json: bool) -> int:
    """Whether it is there, whether it answers you, and what it can give. Exit code 1 where it does not."""
    from inbounds.host.install import status as look

    facts = look(_places())
    known = _runs()
    for slot in facts["slots"]:
        slot["run"] = known.get(slot["slot"], "") if slot["owner"] == os.getuid() else ""
        slot["to_type"] = _to_type(slot)
    _show(facts, as_json=as_json)
    return 1 if facts["problems"] else 0


@command.command("release")
@click.argument("slot", type=click.IntRange(0, 79))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def release(slot: int, as_json: bool) -> None:
    """Destroy what is kept in SLOT, one of yours that no run knows any more, and give it back."""
    from inbounds.contracts.errors import HostError, RefusedError
    from inbounds.sandbox.hardened import Slot

    if run := _runs().get(slot):
        raise RefusedError(f"slot {slot} has the work of run {run}", fix=f"inbounds discard {run}")
    if not Slot.discard_kept(slot):
        raise HostError(f"there is no slot {slot}", expected="one of yours", fix="inbounds host status")
    if as_json:
        emit({"released": slot})
    else:
        say(f"slot {slot}: its volume is destroyed, and its number is free")


def _places() -> "Places":
    """The installed service's; with a socket of somebody's own (tests), what is beside that."""
    from inbounds.host.install import Places
    from inbounds.host.slots import Paths
    from inbounds.sandbox.hardened import PLACE

    own = os.environ.get(PLACE)
    return Places(Paths(state="", run=os.path.dirname(own))) if own else Places()


def _runs() -> dict[int, str]:
    """Which slot has the work of which run of this state directory."""
    from inbounds.run.home import Home, locate
    from inbounds.run.slotfile import number_of

    home = Home(locate())
    if not (home.path / "runs").is_dir():  # looking makes nothing
        return {}
    numbers = {run_id: number_of(home.run(run_id)) for run_id in home.runs()}
    return {number: run_id for run_id, number in numbers.items() if number is not None}


def _to_type(slot: dict[str, Any]) -> str:
    """What frees a slot that nobody holds; "" where a run, or another user, has it in use."""
    if slot["phase"] != "kept":
        return ""
    if slot["run"]:
        return f"inbounds discard {slot['run']}"
    return f"inbounds host release {slot['slot']}"


def _root_only(verb: str, operators: list[str]) -> None:
    """Refuse anybody else, with the command that would do it."""
    if os.geteuid() == 0:
        return
    from inbounds.contracts.errors import OperatorError

    program = shlex.quote(os.path.abspath(sys.argv[0]))
    if operators == ["USER"]:
        import pwd

        try:
            operators = [pwd.getpwuid(os.getuid()).pw_name]
        except KeyError:  # somebody without an account cannot be in a group
            operators = []
    words = [f"--operator {shlex.quote(name)}" for name in operators]
    raise OperatorError(
        f"host {verb} changes the system, and you are not root",
        expected="root, once",
        fix=" ".join(["sudo", program, "host", verb, *words]),
    )


def _host_fault(error: "CannotError") -> NoReturn:
    from inbounds.contracts.errors import HostError

    raise HostError(error.found, expected=error.expected, fix=error.fix) from error


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(facts)
        return
    state = "answers" if facts["answers"] else "does not answer you" if facts["installed"] else "is not installed"
    say(f"the host service {state}")
    for problem in facts["problems"]:
        say(f"  {problem}")
    if facts["installed"]:
        say(f"  copy         {facts['library']}")
        say(f"  started by   {facts['init']}")
        say(f"  operators    {', '.join(facts['operators']) or 'root alone'}")
    if facts["answers"]:
        say("  gives        " + ", ".join(name for name, has in facts["mechanisms"].items() if has))
        say("  lacks        " + (", ".join(name for name, has in facts["mechanisms"].items() if not has) or "nothing"))
    for slot in facts["slots"]:
        size = f", {slot['bytes'] >> 20} MiB" if slot["bytes"] else ""
        whose = f" of run {slot['run']}" if slot.get("run") else ""
        say(f"  slot {slot['slot']:<3}     {slot['phase']}{whose}, user {slot['owner']}{size}")
        if slot.get("to_type"):
            why = "to destroy its work" if slot["run"] else "no run of this state directory knows it; to destroy it"
            mine = "" if slot["owner"] == os.getuid() else f", as user {slot['owner']}"
            say(f"               {why}{mine}: {slot['to_type']}")
