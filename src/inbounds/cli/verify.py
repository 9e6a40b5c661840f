"""`inbounds verify`: re-check everything that a run left as evidence; offline, changing nothing."""

from functools import partial
from pathlib import Path

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds verify            the latest run
  inbounds verify RUN --json

Exit code: 0 all of it holds, 1 something does not, and what."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--dir", "directory", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="An exported run directory instead of RUN.")  # fmt: skip
@click.option("--anchors", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Heads kept elsewhere, one JSON object a line (default: this state directory's).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, directory: Path | None, anchors: Path | None, as_json: bool) -> int:
    """Check journal, anchors, stop sequence, manifest, contract and commits of RUN (the latest by default).

    Exit 0 if every check holds, 1 if one does not.
    """
    from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED, OperatorError
    from inbounds.journal import anchor
    from inbounds.journal.verify import verify_run
    from inbounds.run.home import open_home

    if run and directory:
        raise OperatorError("both RUN and --dir", expected="one of them")
    exists = None
    if directory is None:
        home = open_home()
        directory, exists = home.run(home.find(run)), partial(_exists, home.stores)
    try:
        given = anchor.read(anchors) if anchors else None
    except (OSError, ValueError) as error:
        raise OperatorError(str(error), where="--anchors", expected="lines of {at_ms, hash, seq}") from None
    found = verify_run(directory, anchors=given, commit_exists=exists)
    if as_json:
        emit({"run_id": directory.name, **found.as_json()})
    else:
        for check in found.checks:
            say(f"{'holds' if check.ok else 'FAILS'}  {check.name}: {check.detail}")
        say(f"{directory.name}: {'verified' if found.ok else 'NOT verified'}")
    return EXIT_KEPT if found.ok else EXIT_REFUSED


def _exists(stores: Path, store: str, name: str) -> bool:
    """Whether a store of ours has the object; git is never pointed at a place that only the journal names."""
    from inbounds.contracts.errors import InboundsError
    from inbounds.store import git

    place = Path(store)
    if not place.is_absolute() or stores.resolve() not in place.resolve().parents or not place.exists():
        return False
    try:
        git.run(["cat-file", "-e", name], git_dir=store)
    except InboundsError:
        return False
    return True
