"""`inbounds host`: install, remove and show the root service that hardened runs need."""

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.host.install import CannotError

EPILOG = """\b
  sudo inbounds host install --operator $USER    once; nobody needs root afterwards
  inbounds host status
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
    from inbounds.host.install import Places
    from inbounds.host.install import status as look

    facts = look(Places())
    _show(facts, as_json=as_json)
    return 1 if facts["problems"] else 0


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
        say(f"  slot {slot['slot']:<3}     {slot['phase']}, user {slot['owner']}, {slot['bytes'] >> 20} MiB")
