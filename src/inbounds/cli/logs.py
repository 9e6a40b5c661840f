"""`inbounds logs`: a run's journal as a timeline, one line a record; what an agent said is shown, never obeyed."""

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EPILOG = """\b
  inbounds logs              the latest run, to its end or to now
  inbounds logs RUN -f       go on until it is over
  inbounds logs RUN --json | jq 'select(.kind == "denial")'"""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run is over; Ctrl-C stops showing, not the run.")
@click.option("--json", "as_json", is_flag=True, help="Print each record as one JSON line.")
def command(run: str | None, follow: bool, as_json: bool) -> int:
    """Show the journal of RUN (the latest by default)."""
    import json

    from inbounds.console.plain import visible
    from inbounds.console.terminal import event_line
    from inbounds.contracts.errors import EXIT_REFUSED
    from inbounds.journal.chain import ChainError
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    try:
        for record in _records(home.run(run_id), follow=follow):
            print(json.dumps(record._asdict()) if as_json else event_line(record), flush=follow)
    except KeyboardInterrupt:
        sys.stderr.write(f"inbounds: the run goes on; type: inbounds stop {run_id} to end it\n")
    except ChainError as broken:
        sys.stdout.flush()
        sys.stderr.write(f"inbounds: the journal does not hold: {visible(str(broken))}\n")
        sys.stderr.write(f"  type:     inbounds verify {run_id}\n")
        return EXIT_REFUSED
    return 0


def _records(run_dir: "Path", *, follow: bool) -> "Iterator[Any]":
    """Records whose chain holds; a half-written last line is no break while somebody writes."""
    from inbounds.journal import chain
    from inbounds.run import recovery
    from inbounds.run.follow import follow as following

    path = run_dir / "journal.jsonl"
    if follow:
        living = lambda: recovery.locked(run_dir) or not path.exists()  # noqa: E731 - one question, asked at each poll
        yield from chain.linked(chain.Record(**raw) for raw in following(run_dir, living))
        return
    if not path.exists():
        return
    try:
        yield from chain.linked(chain.records(path))
    except chain.ChainError as broken:
        if broken.rule != "torn" or not recovery.locked(run_dir):
            raise
