"""The answers of `verify`: what a check is, and those that compare the small files beside the journal with it.

Reads these files once, bounded; the journal itself is read by `verify`. Imports nothing that acts.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from inbounds.contracts.canonical import digest
from inbounds.journal import anchor, manifest, note
from inbounds.journal.anchor import Anchor
from inbounds.journal.damage import Damage, Fault
from inbounds.journal.manifest import Derivation
from inbounds.journal.note import NoteError, VerifierKey

# contract.json, blast_radius.json, manifest.json: the largest is a manifest with thousands of files and findings.
FILE_BYTES_MAX = 64 << 20
SHOWN = 5  # faults in one line; the rest is counted
PUBLIC = "keys/journal.pub"


class State(StrEnum):
    """The answer to one question."""

    HOLDS = "holds"
    FAILS = "FAILS"
    UNCHECKED = "not checked"


class Check(NamedTuple):
    """One question and its answer; `detail` says what was found, `kind` names the first fault (`damage.Damage`)."""

    name: str
    state: State
    detail: str
    kind: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds; what was not checked does not."""
        return self.state is State.HOLDS


def answer(name: str, faults: Sequence[Fault], fine: str) -> Check:
    """FAILS with the first faults in words, or HOLDS."""
    if not faults:
        return Check(name, State.HOLDS, fine)
    shown = "; ".join(fault.words for fault in faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return Check(name, State.FAILS, f"{faults[0].kind}: {shown}{more}", faults[0].kind)


class Document(NamedTuple):
    """A canonical JSON file of the run; `sha256` is "" and `problem` says why where there is none."""

    name: str
    value: Any
    sha256: str
    problem: str

    def table(self) -> dict[str, Any]:
        """Its members; {} for what is no object."""
        return self.value if isinstance(self.value, dict) else {}


def document(path: Path) -> Document:
    """Read and hash it; a file that is missing or has no canonical form is a value, too."""
    try:
        value = json.loads(_read(path))
        return Document(path.name, value, digest(value), "")
    except OSError as error:
        return Document(path.name, None, "", f"{path.name}: {error.strerror}")
    except (ValueError, TypeError, RecursionError) as error:
        return Document(path.name, None, "", f"{path.name} has no canonical form: {error}"[:200])


def accepted_document(name: str, found: Document, stated: object) -> Check:
    """Is the file the one whose hash the run accepted?"""
    if found.problem:
        return Check(name, State.FAILS, found.problem, Damage.OTHER_FILE)
    if found.sha256 != stated:
        return Check(name, State.FAILS, f"{found.name} is not the one that the run accepted", Damage.OTHER_FILE)
    return Check(name, State.HOLDS, f"{found.name} is the one that the run accepted")


def manifest_check(path: Path, derivation: Derivation, seq: int, head: str, count: int) -> Check:
    """Is the manifest what the journal gives, byte for byte?"""
    try:
        stored = _read(path)
        derived = derivation.made(seq, head, count)
        if stored == manifest.encode(derived):
            return Check("manifest", State.HOLDS, "is what the journal gives, byte for byte")
    except OSError as error:
        return Check("manifest", State.FAILS, f"{path.name}: {error.strerror}", Damage.OTHER_FILE)
    except (ValueError, TypeError, AttributeError) as error:
        words = f"cannot be derived from this journal: {error}"[:200]
        return Check("manifest", State.FAILS, words, Damage.OTHER_FILE)
    try:
        said = json.loads(stored)
        differ = sorted(k for k in {*said, *derived} if said.get(k) != derived.get(k)) or ["its encoding"]
    except (ValueError, TypeError, AttributeError, RecursionError):
        differ = ["it is no JSON object"]
    words = f"is not what the journal gives: {', '.join(differ)}"[:200]
    return Check("manifest", State.FAILS, words, Damage.OTHER_FILE)


def identity(run_dir: Path, contract: dict[str, Any], named: object, count: int) -> Check:
    """The journal is this run's: a whole journal of another run in its place is not."""
    faults = []
    if contract.get("run_id", named) != named:
        words = f"the contract is of run {contract.get('run_id')}, the journal of {named}"
        faults.append(Fault(Damage.OTHER_RUN, words))
    if anchor.beside(run_dir) is not None and named != run_dir.absolute().name:
        words = f"the directory is of run {run_dir.absolute().name}, the journal of {named}"
        faults.append(Fault(Damage.OTHER_RUN, words))
    return answer("identity", faults, f"run {named}, {count} records")


def anchors_beside(run_dir: Path) -> tuple[Anchor, ...]:
    """The anchors that this state directory, or the bundle that this is, keeps of the run; () where it keeps none.

    ValueError for a file that holds something else, OSError for one that cannot be read.
    """
    return anchor.read(anchor.beside(run_dir) or run_dir / "anchors.jsonl")


def keys_beside(run_dir: Path) -> tuple[tuple[VerifierKey, ...], str]:
    """The keys of the state directory that holds this run, or of the bundle that this is; and where they lie.

    ValueError for a file that is no key, OSError for one that cannot be read.
    """
    run_dir = run_dir.absolute()
    ours = run_dir.parent.name == "runs"
    path = (run_dir.parents[1] if ours else run_dir) / PUBLIC
    try:
        return read_keys(path), "this state directory" if ours else "the bundle itself"
    except FileNotFoundError:
        return (), ""


def read_keys(path: Path) -> tuple[VerifierKey, ...]:
    """Verifier keys, one a line; ValueError for anything else."""
    return tuple(note.parse_key(line) for line in _read(path).decode().splitlines() if line.strip())


def key_check(stated: object, keys: Sequence[VerifierKey], source: str) -> Check:
    """Is the key that signed the checkpoints one that somebody other than the journal names?"""
    try:
        key = note.parse_key(stated if isinstance(stated, str) else "")
    except NoteError:
        return Check("key", State.FAILS, "run.accepted names no key that signs checkpoints", Damage.NO_KEY)
    if not keys:
        words = f"the journal names {key.name}; no key was given to compare it with (--key FILE)"
        return Check("key", State.UNCHECKED, words, Damage.NO_KEY)
    if key not in keys:
        known = ", ".join(known.name for known in keys[:SHOWN])
        return Check("key", State.FAILS, f"the journal names {key.name}, {source} {known}", Damage.OTHER_KEY)
    return Check("key", State.HOLDS, f"{key.name}, as {source} has it")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path.name} is longer than {FILE_BYTES_MAX} bytes")
    return content
