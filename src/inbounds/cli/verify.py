"""`inbounds verify`: re-check everything that a run left as evidence; offline, changing nothing."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:  # a verb's help costs no import
    from inbounds.journal.anchor import Anchor
    from inbounds.run.home import Home

EPILOG = """\b
  inbounds verify                       the latest run
  inbounds verify RUN --from CLONE      and the heads that a clone's commits name
  inbounds verify --dir BUNDLE --key FILE
  inbounds verify --drill latest        the newest drill

Exit code: 0 all of it holds, 1 something does not, and what."""

OWN_ACCOUNT = (
    "every head was kept where this account writes: against its owner only an outside one counts (--from, --stamps-ca)"
)


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@click.option("--from", "clone", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="A clone whose commits name heads of this run's journal.")  # fmt: skip
@click.option("--dir", "directory", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="An exported run directory instead of RUN.")  # fmt: skip
@click.option("--anchors", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Heads kept elsewhere, a JSON object a line (default: all that are kept here).")  # fmt: skip
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The journal's verifier key (default: this state directory's, or the bundle's own).")  # fmt: skip
@click.option("--stamps-ca", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The certificates (PEM) of policy's RFC 3161 authority: asks its time-stamps, too.")  # fmt: skip
@click.option("--drill", metavar="ID", help="A drill's evidence instead of a run's; latest: the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(
    run: str | None, clone: Path | None, directory: Path | None, anchors: Path | None, key: Path | None,
    stamps_ca: Path | None, drill: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Check everything that RUN (the latest by default) left as evidence; offline, with public keys only.

    Exit 0 if every check holds, 1 if one does not.
    """
    from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED, OperatorError
    from inbounds.journal import checks
    from inbounds.journal.verify import verify_run
    from inbounds.run.home import open_home

    if sum(map(bool, (run, directory, drill))) > 1:
        raise OperatorError("more than one of RUN, --dir and --drill", expected="one of them")
    if drill:
        return _drill(drill, as_json=as_json)
    home, exists = None, None
    if directory is None:
        home = open_home()
        directory, exists = home.run(home.find(run)), partial(_exists, home.stores)
    try:
        keys = checks.read_keys(key) if key else None
    except (OSError, ValueError) as error:
        raise OperatorError(str(error), where="--key", expected="a line as keys/journal.pub has it") from None
    given = _anchors(directory, home, anchors, clone)
    if stamps_ca is not None:
        given = [*(given or ()), *_stamps(directory, stamps_ca)]
    found = verify_run(
        directory,
        anchors=given,
        keys=keys,
        commit_exists=exists,
        checker=_checker,
        processes=len(os.sched_getaffinity(0)),
    )
    notes = (*found.notes, *((OWN_ACCOUNT,) if not (clone or anchors or stamps_ca) else ()))
    if as_json:
        emit({"run_id": directory.name, **found.as_json(), "notes": list(notes)})
    else:
        for check in found.checks:
            say(f"{check.state.value:11}  {check.name}: {check.detail}")
        for words in notes:
            say(f"note         {words}")
        say(f"{directory.name}: {found.verdict}")
    return EXIT_KEPT if found.ok else EXIT_REFUSED


def _drill(name: str, *, as_json: bool) -> int:
    """Chain, signed head and counts of one drill, by this state directory's key and the head it kept apart."""
    from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED, OperatorError
    from inbounds.drill import record
    from inbounds.journal.signing import public_key
    from inbounds.run.home import open_home

    home = open_home()
    known = list(record.drills(home.path))
    chosen = next((path for path in known if name in ("latest", path.name)), None)
    if chosen is None:
        raise OperatorError(f"no drill is named {name!r}", where=str(home.path), fix="inbounds drill")
    found = record.read(chosen, public_key(home.keys))
    if as_json:
        emit({"drill_id": found.drill_id, "ok": not found.problem, "problem": found.problem, "clean": found.clean,
              "cases": found.cases, "started": dict(found.started), "finished": dict(found.finished)})  # fmt: skip
    else:
        words = found.problem or f"{found.cases} cases, {'clean' if found.clean else 'not a clean drill of everything'}"
        say(f"{found.drill_id}: {'NOT verified' if found.problem else 'verified'}: {words}")
    return EXIT_REFUSED if found.problem else EXIT_KEPT


def _anchors(directory: Path, home: "Home | None", named: Path | None, clone: Path | None) -> "list[Anchor] | None":
    """Heads from every place that is there; None where the file of this run's own is none, which verify says."""
    from inbounds.cli import witnesses
    from inbounds.contracts.errors import OperatorError
    from inbounds.journal import anchor, checks

    try:
        found = list(anchor.read(named) if named else checks.anchors_beside(directory))
    except (OSError, ValueError) as error:
        if named is None:
            return None
        raise OperatorError(str(error), where="--anchors", expected="lines of {at_ms, hash, seq}") from None
    run_id, store = _named(directory)
    if home is not None and named is None:
        found += witnesses.of_ledger(home.ledger, run_id)
        if _ours(home.stores, store):
            found += witnesses.of_commits(Path(store), run_id, "the store's commits")
    if clone is not None:
        found += witnesses.of_commits(clone, run_id, "the clone's commits")
    return found


def _stamps(directory: Path, ca_file: Path) -> "list[Anchor]":
    from inbounds.cli import witnesses
    from inbounds.journal import anchor
    from inbounds.run.witness import STAMPS

    beside = anchor.beside(directory) or directory / "anchors.jsonl"
    return witnesses.of_stamps(beside.with_name(f"{beside.name.removesuffix('.jsonl')}{STAMPS}"), ca_file)


def _named(directory: Path) -> tuple[str, str]:
    """Whose journal this says it is, and its store: where to look for heads, before anything is known to hold."""
    from inbounds.journal import chain

    try:
        accepted = next(r.data for r in chain.records(directory / "journal.jsonl") if r.kind == "run.accepted")
    except (OSError, ValueError, StopIteration):
        return directory.name, ""
    return str(accepted.get("run_id", "")), str(accepted.get("store", ""))


def _checker(message: bytes, signature: str, namespace: str, who: str, key: str) -> bool:
    """Signatures by keys that are not Ed25519: ssh-keygen knows them."""
    from inbounds.journal import sshsig

    return sshsig.verify(message, signature, namespace, who, {who: key})


def _ours(stores: Path, store: str) -> bool:
    """Whether it is a store of this state directory: git is never pointed at a place that only the journal names."""
    place = Path(store)
    return place.is_absolute() and stores.resolve() in place.resolve().parents and place.exists()


def _exists(stores: Path, store: str, name: str) -> bool:
    """Whether a store of ours has the object."""
    from inbounds.contracts.errors import InboundsError
    from inbounds.store import git

    if not _ours(stores, store):
        return False
    try:
        git.run(["cat-file", "-e", name], git_dir=store)
    except InboundsError:
        return False
    return True
