"""Heads of a run's journal in the places that only a process can ask: the ledger, git's commit messages, time-stamps.

A clone is untrusted, and so is its configuration; what stands in it can make a journal fail, never hold.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.ids import RUN_ID
from inbounds.journal.anchor import UNPLACED, Anchor

STAMPS_BYTES_MAX = 64 << 20  # a token has some kilobytes, and a run a few hundred checkpoints
# A commit for every iteration and promotion of one run, with a message of some kilobytes each: far beyond any.
LOG_BYTES_MAX = 64 << 20
LOG_SECONDS = 60.0
NOT_A_REPOSITORY = 128  # git's exit status for every fatal error
_TRAILER = re.compile(r"(Run|Inbounds-Run|Journal|Inbounds-Journal-Head): (\S{1,200})")
_PLACED, _HEAD = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})"), re.compile(r"[0-9a-f]{64}")


def of_ledger(ledger: Path, run_id: str) -> list[Anchor]:
    """The rows that the gateway keeps; [] where there is no ledger. HostError for one that cannot be read."""
    from inbounds.gateway.ledger import anchors

    rows = anchors(ledger, run_id)
    return [Anchor(row.seq, row.hash, "the ledger", row.size, row.root, row.note, row.at_ms) for row in rows]


def of_stamps(stamps: Path, ca_file: Path) -> list[Anchor]:
    """The checkpoints that an RFC 3161 authority stamped, each token verified under the authority's own certificates.

    [] where nothing was stamped. OperatorError for a file that is none, or a token that does not hold: a witness that
    was tampered with is no silence.
    """
    from inbounds.journal import anchor
    from inbounds.run import timestamp

    try:
        with stamps.open("rb") as file:
            content = file.read(STAMPS_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    found: list[Anchor] = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            stamp = json.loads(line)["stamp"]
            token = str(stamp["token"])
        except (ValueError, KeyError, TypeError) as error:
            raise OperatorError(f"line {number} is no time-stamp: {error}", where=str(stamps)) from None
        kept = anchor.parse(line, "an RFC 3161 time-stamp")
        if not token:  # the authority did not answer then; the file says why
            continue
        why = "it names no head" if kept is None else timestamp.check(kept.note, token, str(ca_file))
        if kept is None or why:
            raise OperatorError(
                f"the time-stamp in line {number} does not hold: {why}",
                where=str(stamps),
                expected="a token of the authority whose certificates were given",
            )
        found.append(kept)
    return found


def of_commits(repository: Path, run_id: str, source: str) -> list[Anchor]:
    """The heads that commits and promotions of this run name in their trailers, on any branch of a repository.

    OperatorError if it is none.
    """
    from inbounds.store import git

    if not RUN_ID.fullmatch(run_id):
        raise OperatorError(f"{run_id!r} is no run's id", where=source)
    with tempfile.NamedTemporaryFile("w", prefix="inbounds-trust-") as trust:
        # It was named by the operator; git's own question is about repositories that were come upon.
        trust.write("[safe]\n\tdirectory = *\n")
        trust.flush()
        env = {"GIT_CONFIG_GLOBAL": trust.name}
        where = ["-C", str(repository.resolve()), "rev-parse", "--path-format=absolute", "--git-dir"]
        code, out = git.status(where, env=env, ok=frozenset({0, NOT_A_REPOSITORY}))
        if code:
            raise OperatorError(
                "this is no git repository", where=str(repository), expected="a clone of the run's store"
            )
        args = ["log", "--all", "--no-color", "--no-decorate", "--no-mailmap", "--no-show-signature", "--no-patch",
                "--fixed-strings", f"--grep=Run: {run_id}", "--format=%B%x00"]  # fmt: skip
        git_dir = out.decode("utf-8", "surrogateescape").rstrip("\n")
        log = git.run(args, git_dir=git_dir, env=env, limit=LOG_BYTES_MAX, timeout_s=LOG_SECONDS)
    return [kept for message in log.decode("utf-8", "replace").split("\0") for kept in _heads(message, run_id, source)]


def _heads(message: str, run_id: str, source: str) -> Iterator[Anchor]:
    """Of the last paragraph, as git's own trailers; a message that is of another run has none for this one."""
    last = message.strip().rpartition("\n\n")[2]
    found = {match[1]: match[2] for line in last.split("\n") if (match := _TRAILER.fullmatch(line))}
    placed, head = _PLACED.fullmatch(found.get("Journal", "")), _HEAD.fullmatch(found.get("Inbounds-Journal-Head", ""))
    if placed and found.get("Run") == run_id:
        yield Anchor(int(placed[1]), placed[2], source)
    if head and found.get("Inbounds-Run") == run_id:
        yield Anchor(UNPLACED, head[0], source)
