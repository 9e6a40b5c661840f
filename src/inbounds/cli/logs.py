"""`inbounds logs`: a run's journal as a timeline, or the workspace as it was at one of its records.

What an agent said or wrote is shown, never obeyed.
"""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inbounds.console.timeline import Line
    from inbounds.journal.chain import Record
    from inbounds.run.home import Home

PROMPT_BYTES_MAX = 4 << 20  # as a journal's line: far above what a prompt is composed of
PROMPT_NAME = re.compile(r"prompt-[0-9]{1,9}(-[0-9a-f]{8})?\.txt")
COLUMNS_MIN = 40  # below, a terminal wraps better than we do

EPILOG = """\b
What a line says: UTC time, time since the start, category, sentence.
  asked     what people and inbounds asked of the agent
  seen      what the host, the gateway and the watchers observed
  written   trees and commits made of what the agent left
  executed  jails, programs and tools that ran
  refused   what the agent reached for and did not get
  spent     model requests, with tokens and money
  decided   verdicts, the stop, the gate, people
  evidence  the journal's and the stop's own steps
  said      the agent's own words: labelled, and never evidence

\b
  inbounds logs              the latest run, to its end or to now
  inbounds logs RUN -f       go on until it is over
  inbounds logs RUN -v       every record by its number, prompts in full
  inbounds logs RUN --json | jq 'select(.kind == "denial")'
  inbounds logs RUN --at 42 --to /tmp/then
                             the workspace as record 42 found it

--at writes the whole tree of the last snapshot or commit at or before that
record: git's modes, links as links, nothing executed, hashed again when it is
written. It is an agent's work: look at it, do not run it.

Exit code: 0, or 1 where journal or prompts do not hold (what holds is shown)."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run is over; Ctrl-C stops showing, not the run.")
@click.option("--verbose", "-v", is_flag=True, help="One line for every record, with its number; prompts in full.")
@click.option("--json", "as_json", is_flag=True, help="Print each record as one JSON line (with --at: the facts).")
@click.option("--at", type=click.IntRange(min=0), metavar="SEQ", help="Rebuild the workspace as of this record.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Where to: a new or empty directory.")
def command(run: str | None, follow: bool, verbose: bool, as_json: bool, at: int | None, to: Path | None) -> int:
    """Show the journal of RUN (the latest by default): what was asked, seen, written, executed, refused and spent."""
    from inbounds.contracts.errors import OperatorError
    from inbounds.run.home import open_home

    if at is None and to is not None:
        raise OperatorError("--to goes with --at", expected="the record to rebuild", fix="inbounds logs RUN --at SEQ")
    if at is not None and (follow or verbose):
        raise OperatorError("--at writes files and shows no timeline", expected="--at SEQ without --follow, --verbose")
    home = open_home()
    run_id = home.find(run)
    if at is not None:
        return _rebuild(home, run_id, at, to, as_json=as_json)
    return _show(home, run_id, follow=follow, verbose=verbose, as_json=as_json)


def _show(home: "Home", run_id: str, *, follow: bool, verbose: bool, as_json: bool) -> int:
    """Print what holds, then say what does not."""
    from inbounds.console.plain import visible
    from inbounds.console.timeline import Timeline
    from inbounds.contracts.errors import EXIT_REFUSED
    from inbounds.journal.chain import ChainError, linked
    from inbounds.run.follow import Ending

    run_dir = home.run(run_id)
    timeline, draw, ending = Timeline(verbose=verbose, read=_reader(run_dir)), _drawing(verbose=verbose), Ending()

    def idle() -> None:
        if not as_json:
            draw(timeline.pause())
        sys.stdout.flush()

    try:
        found = _growing(home, run_id, ending, idle) if follow else _standing(run_dir)
        for record in linked(found):
            if as_json:
                sys.stdout.write(_json(record) + "\n")
            else:
                draw(timeline.feed(record))
        if not as_json:
            draw(timeline.end())
    except KeyboardInterrupt:
        sys.stderr.write(f"inbounds: the run goes on; type: inbounds stop {run_id} to end it\n")
        return 0
    except ChainError as broken:
        if not as_json:
            draw(timeline.pause())
        sys.stdout.flush()
        sys.stderr.write(f"inbounds: the journal does not hold: {visible(str(broken))}\n")
        sys.stderr.write(f"  type:     inbounds verify {run_id}\n")
        return EXIT_REFUSED
    sys.stdout.flush()
    if follow and not ending.over:
        sys.stderr.write(
            "inbounds: nobody writes any more: the run's supervisor is dead\n  type:     inbounds status\n"
        )
    for fault in timeline.faults:
        sys.stderr.write(f"inbounds: {fault}\n")
    return EXIT_REFUSED if timeline.faults else 0


def _standing(run_dir: "Path") -> "Iterator[Record]":
    """The records that are there; a last line without its end is one that is being written, or was by the dead."""
    from inbounds.journal import chain

    try:
        yield from chain.records(run_dir / "journal.jsonl")
    except FileNotFoundError:
        return
    except chain.ChainError as broken:
        if broken.rule != "torn":
            raise
        from inbounds.run import recovery

        if not recovery.locked(run_dir):
            sys.stderr.write("inbounds: the last line is unfinished, its writer died\n  type:     inbounds status\n")


def _growing(home: "Home", run_id: str, ending: Any, idle: "Callable[[], None]") -> "Iterator[Record]":
    from inbounds.run import follow, recovery

    run_dir = home.run(run_id)

    def alive() -> bool:
        return recovery.locked(run_dir) or recovery.phase(home, run_id) == "starting"

    return follow.records(run_dir, alive, ending, idle)


def _json(record: "Record") -> str:
    """One record as it stands in the journal, its members in this order for ever; ASCII, so that nothing is obeyed."""
    import json

    return json.dumps(
        {
            "seq": record.seq,
            "at_ms": record.at_ms,
            "kind": record.kind,
            "data": record.data,
            "prev": record.prev,
            "hash": record.hash,
        }
    )


def _drawing(*, verbose: bool) -> "Callable[[Iterator[Line]], None]":
    """How lines reach the screen: wrapped and coloured on a terminal, one line each and plain anywhere else."""
    import shutil

    from inbounds.console.terminal import timeline_line

    terminal = sys.stdout.isatty()
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    columns = shutil.get_terminal_size().columns if terminal else 0
    width = columns if columns >= COLUMNS_MIN else 0

    def draw(lines: "Iterator[Line]") -> None:
        for line in lines:
            sys.stdout.write(timeline_line(line, width=width, color=color, verbose=verbose) + "\n")

    return draw


def _reader(run_dir: "Path") -> "Callable[[str], bytes | None]":
    """Prompts by name out of the run's logs, and nothing else; None for what is no plain file in bounds."""

    def read(name: str) -> bytes | None:
        from inbounds.run.workbench import read_limited

        return read_limited(run_dir / "logs" / name, PROMPT_BYTES_MAX) if PROMPT_NAME.fullmatch(name) else None

    return read


def _rebuild(home: "Home", run_id: str, at: int, to: "Path | None", *, as_json: bool) -> int:
    from inbounds.cli.output import emit, say
    from inbounds.run.rebuild import rebuild

    made = rebuild(home, run_id, at, to)
    if as_json:
        emit(made.facts())
        return 0
    found = made.checkpoint
    say(f"{run_id} as of record {at}: {made.directory}")
    say(f"  tree   {found.tree}, stated by record {found.seq} ({found.kind})")
    say(f"  files  {made.files:,} with {made.bytes:,} bytes, hashed again: they are that tree")
    if not found.complete:
        say(f"  note   the snapshot was not complete: {found.why}")
    say("  note   untrusted: an agent may have written any of it; look, and run nothing")
    return 0
