"""`inbounds thread`: list the repository's threads, or give a directory a contract of its own."""

from pathlib import Path

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds thread list
  inbounds thread add billing    then: inbounds run billing --goal … --accept billing/tests/test_x.py::test_y

A thread is a directory with an owner and bounds of its own; its agents see nothing else of the repository."""


@click.group(epilog=EPILOG)
def command() -> None:
    """List threads, or make a directory one."""


@command.command("list")
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def list_threads(directory: Path, as_json: bool) -> None:
    """Every thread of the repository, with its owner."""
    from inbounds.discover.repository import top_of
    from inbounds.run import documents

    top = Path(top_of(directory))
    rows = []
    for thread in documents.threads(top):
        found = documents.read(top, thread)
        rows.append({"thread": thread, "owner": found.config.owner, "plan": found.plan.plan_id if found.plan else None})
    if as_json:
        emit({"threads": rows})
        return
    for row in rows:
        say(f"{row['thread']}  owner {row['owner']}  {row['plan'] or 'no plan'}")
    if not rows:
        say("no thread yet; type: inbounds init")


@command.command("add")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def add(directory: Path, as_json: bool) -> None:
    """Write a config for DIRECTORY from what is found there."""
    from inbounds.run.setup import write_thread

    written = write_thread(directory)
    if as_json:
        emit(written)
    else:
        for path in written["written"]:
            say(f"wrote {path}")
