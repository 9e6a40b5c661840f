"""The `inbounds` command: finds the verb, imports only that verb, and turns faults into exit codes.

Exit codes are API: 0 kept, 1 refused or stopped, 100 the operator's mistake, 111 the host's. Knows no verb's work.
"""

import importlib
import json
import sys
from typing import Any

import click

from inbounds import __version__
from inbounds.contracts.errors import EXIT_OPERATOR, InboundsError

# verb -> (module, one line); the modules are imported only when their verb is used, so that --help stays fast
VERBS: dict[str, tuple[str, str]] = {
    "init": ("inbounds.cli.init", "Look at this host and repository and write the contract files."),
    "thread": ("inbounds.cli.thread", "List threads, or make a directory one."),
    "plan": ("inbounds.cli.plan", "Draft, show or sign a work plan."),
    "check": ("inbounds.cli.check", "Check the contracts, and show where each value comes from."),
    "run": ("inbounds.cli.run", "Run an agent within its bounds."),
    "status": ("inbounds.cli.status", "What runs, what stopped, what waits for you."),
    "logs": ("inbounds.cli.logs", "A run's journal, as a timeline."),
    "review": ("inbounds.cli.review", "What a run did, and what it needs from you."),
    "approve": ("inbounds.cli.approve", "Sign that a run's result may land."),
    "resume": ("inbounds.cli.resume", "Re-authorize a run after its stop, and go on."),
    "amend": ("inbounds.cli.amend", "Sign new limits for a run."),
    "recover": ("inbounds.cli.recover", "Take up runs whose supervisor died."),
    "promote": ("inbounds.cli.promote", "Let the gate move a protected branch to a run's result."),
    "rollback": ("inbounds.cli.rollback", "Undo landed work."),
    "discard": ("inbounds.cli.discard", "Throw unlanded work away and free its disk space."),
    "stop": ("inbounds.cli.stop", "Stop a run, or all of them."),
    "verify": ("inbounds.cli.verify", "Re-check everything a run left as evidence."),
    "export": ("inbounds.cli.export", "Evidence as one file for an audit, or as traces."),
    "host": ("inbounds.cli.host", "Install, remove or show the service for hardened runs."),
    "doctor": ("inbounds.cli.doctor", "What this host enforces, tried for real."),
    "drill": ("inbounds.cli.drill", "Attack this host's own jails, and say what held."),
    "shell": ("inbounds.cli.shell", "A shell or command in the jail that a role would get."),
    "budget": ("inbounds.cli.budget", "Caps, spend and reservations."),
    "key": ("inbounds.cli.key", "Provider keys: add, list, remove; never printed."),
    "env": ("inbounds.cli.env", "Build or show the dependency layer."),
    "demo": ("inbounds.cli.demo", "Three real runs in a bundled repository."),
}


class Verbs(click.Group):
    """A group that imports a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of a run, not of the alphabet."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """One line a verb, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: inbounds init, inbounds run . --goal … --accept tests/x.py::test_y, inbounds review. "
    'Shell completion: eval "$(_INBOUNDS_COMPLETE=bash_source inbounds)" (or zsh_source, fish_source).',
)
@click.version_option(__version__, prog_name="inbounds")
def group() -> None:
    """Run any coding agent, unattended, inside bounds that the operating system enforces."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: run the verb, map faults to exit codes."""
    args = sys.argv[1:] if argv is None else argv
    as_json = "--json" in args
    try:
        result: Any = group.main(args=args, prog_name="inbounds", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.Abort:
        sys.stderr.write("inbounds: interrupted\n")
        sys.exit(1)
    except click.ClickException as mistake:
        mistake.show()
        sys.exit(EXIT_OPERATOR)
    except InboundsError as fault:
        _show(fault, as_json=as_json)
        sys.exit(fault.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _show(fault: InboundsError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": fault.facts(), "exit": fault.exit_code}))
        return
    from inbounds.console.plain import visible

    head = f"{fault.where}: {fault.found}" if fault.where else fault.found
    lines = [f"inbounds: {head}"]
    if fault.expected:
        lines.append(f"  expected: {fault.expected}")
    if fault.fix:
        lines.append(f"  type:     {fault.fix}")
    # what was found may be quoted from a repository or a jail
    sys.stderr.write("\n".join(visible(line, lines=True) for line in lines) + "\n")


if __name__ == "__main__":
    main()
