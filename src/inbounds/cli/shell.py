"""`inbounds shell`: a person's command inside exactly the jail that a role would get; without one, line after line."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inbounds.cli.output import can_ask, say
from inbounds.contracts.errors import OperatorError

if TYPE_CHECKING:
    from inbounds.run.visit import Visit

EPILOG = """\b
What would an agent see, could its tests run, could it get out:
  inbounds shell . -- ls -la
  inbounds shell . --role tester -- python -m pytest -q
  inbounds shell . -- curl https://example.com
Line after line at a prompt, over one workspace:
  inbounds shell .

A jail has no terminal and its standard input is empty, by design: programs that ask questions or draw screens (an
editor, a REPL) do not work in it. At the prompt each line is a command of its own, started in the thread's directory;
what it leaves running ends with it. Files stay until you leave (a coder's in HOME and /tmp too, until a Ctrl-C; a
tester gets a new jail each line), and nothing of it is kept then."""


@click.command(context_settings={"ignore_unknown_options": True}, epilog=EPILOG)
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--role", default="coder", type=click.Choice(["coder", "tester"]), help="Whose jail.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(directory: Path, role: str, argv: tuple[str, ...]) -> int:
    """Run ARGV (after --) in ROLE's jail over HEAD of DIRECTORY's thread; its exit code is passed on."""
    from inbounds.run.home import open_home
    from inbounds.run.visit import Visit

    if not argv and not can_ask():
        raise OperatorError(
            "no command, and nobody at a terminal", expected="a command", fix=f"inbounds shell {directory} -- ls -la"
        )
    with Visit.prepare(open_home(), directory, role, lambda line: say(line, aside=True)) as visit:
        return visit.run(argv) if argv else _lines(visit)


def _lines(visit: "Visit") -> int:
    """Read a line, run it with sh, until the input's end or `exit`; the last exit code."""
    import readline  # noqa: F401 - editing and history for input()

    say(f"the {visit.role}'s jail at {visit.workspace}; each line is a command of its own; exit or Ctrl-D leaves")
    code = 0
    while True:
        try:
            line = input(f"{visit.role}:{visit.workspace}$ ").strip()
        except EOFError:
            say("")
            return code
        except KeyboardInterrupt:
            say("")
            continue
        if line in ("exit", "logout"):
            return code
        if line:
            code = visit.run(("/bin/sh", "-c", line), more=True)
