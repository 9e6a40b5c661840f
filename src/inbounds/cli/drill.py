"""`inbounds drill`: attack this host's own jails, under a thread's own policy, and say what came of each attempt."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.drill.runner import Result

# drill/case.py's; written out here so that --help imports nothing, and held against it by a test
CLASSES = (
    "workspace", "planted", "network", "ipc", "processes", "kernel", "resources", "secrets", "evidence", "failopen",
    "economic", "behaviour",
)  # fmt: skip
JOBS_MAX = 16

EPILOG = """\b
  inbounds drill                          every attack, against this directory's policy
  inbounds drill . --class network        one class
  inbounds drill --case /tmp/mine.py      an attack of your own (docs/drill.md says how to write one)

Each attack first runs outside any jail, harmlessly and in a scratch directory: where it does not succeed there, the
case says NO CONTROL and does not count. The code of a --case FILE is yours and runs on this
host; its ATTACK runs in the jail.

\b
Exit code: 0 nothing escaped and every attack was seen to be tried, 1 otherwise,
100 a mistake in what was typed or in the case, 111 this host cannot make such jails."""


@click.command(epilog=EPILOG)
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--mode", default="rootless", type=click.Choice(["rootless", "hardened"]), help="Whose jails are tried.")
@click.option("--class", "klass", default="", type=click.Choice(["", *CLASSES]), metavar="CLASS",
              help=f"One class: {', '.join(CLASSES)}.")  # fmt: skip
@click.option("--case", "file", type=click.Path(path_type=Path), help="A case from outside the product.")
@click.option("--jobs", type=click.IntRange(1, JOBS_MAX), help="Cases at once (default: as processors, 4 at most).")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(directory: Path, mode: str, klass: str, file: Path | None, jobs: int | None, as_json: bool) -> int:
    """Run the attack suite in real jails as DIRECTORY's thread would get them; the result is signed and kept."""
    from inbounds.drill import report
    from inbounds.run.drilling import Wanted, drill
    from inbounds.run.home import open_home

    def tell(result: "Result") -> None:
        if not as_json:
            say(f"{result.outcome:12} {result.case.id}: {result.observed}", aside=True)

    wanted = Wanted(mode, klass, file, jobs or min(4, len(os.sched_getaffinity(0))))
    found = drill(open_home(), directory, wanted, tell)
    if as_json:
        emit(found)
    else:
        for line in report.lines(found):
            say(line)
    return report.exit_code(found)
