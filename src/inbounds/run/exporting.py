"""Gathers one run's evidence from the state directory for `inbounds export`: a bundle, or traces for a collector.

Reads only, and asks no agent. A run that is alive is not bundled: its evidence is sealed by its stop, and what is not
sealed does not verify; its traces may be looked at at any time.
"""

import hashlib
import importlib.resources
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbounds import __version__
from inbounds.contracts.errors import HostError, InboundsError, OperatorError, RefusedError
from inbounds.export import audit, bundle, otlp, redact
from inbounds.export.statement import Facts
from inbounds.journal import anchor, chain, manifest, note, signing, sshsig
from inbounds.journal.chain import ChainError, Record
from inbounds.journal.tally import NOT_OBSERVED
from inbounds.run import recovery
from inbounds.run.home import Home
from inbounds.run.stopping import PATCH_BYTES_MAX

TRIES = 3  # a person may append a decision between two reads; a third time running is something else
# In a checkout the independent verifier lies with the documentation that explains it; a wheel brings it along.
DOCUMENTED = {bundle.VERIFIER: "docs/verify/verify.py", bundle.PEOPLE: "docs/verify/people.py"}


def collect(home: Home, run_id: str, *, force: bool = False) -> audit.Made:
    """The bundle of a run that is not alive. RefusedError for a living one, or for evidence that holds a secret."""
    phase = recovery.phase(home, run_id)
    if phase in ("running", "starting"):
        raise RefusedError(
            f"{run_id} is {phase}: its evidence is sealed by its stop, and does not verify before",
            expected="a run that is over (its traces can be had: --otlp)",
            fix=f"inbounds stop {run_id}",
        )
    run_dir = home.run(run_id)
    files, records = _evidence(run_dir)
    facts, missing = None, dict[str, str]()
    if isinstance(records, list):
        derived = manifest.derive(records)
        facts = Facts(records, derived, _sha256(files[bundle.JOURNAL]), _sha256(manifest.encode(derived)))
    else:
        missing[bundle.JOURNAL] = f"it does not hold: {records}"
    for name in (bundle.PATCH, bundle.REPORT):
        _add(files, name, run_dir / name)
    if len(files.get(bundle.PATCH, b"")) >= PATCH_BYTES_MAX:
        missing[bundle.PATCH] = f"cut at {PATCH_BYTES_MAX} bytes; the trees are in the store"
    anchors = anchor.beside(run_dir)
    if anchors is not None:
        _add(files, bundle.ANCHORS, anchors)
    files |= {name: script for name in DOCUMENTED if (script := _verifier(name)) is not None}
    signers, why = _allowed_signers(files.get(bundle.CONTRACT, b""))
    if signers:
        files[bundle.SIGNERS] = signers
    else:
        missing[bundle.SIGNERS] = why
    key, signer, unsigned = _key(home, facts)
    if key:
        files[bundle.PUBLIC] = f"{key}\n".encode()
    source = audit.Source(
        run_id=run_id,
        state="finished" if phase == "finished" else "unfinished: its supervisor died",
        files=files,
        facts=facts,
        public=key,
        signer=signer,
        unsigned=unsigned,
        missing=missing,
    )
    return audit.compose(source, force=force)


def write(made: audit.Made, path: Path) -> dict[str, Any]:
    """Write the .tar.gz (0600), whole or not at all, over nothing; returns its facts."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise OperatorError(
            "there is a file of this name", where=str(path), fix="inbounds export RUN -o FILE"
        ) from None
    except OSError as error:
        raise OperatorError(f"the bundle cannot be written: {error.strerror}", where=str(path)) from error
    try:
        with os.fdopen(fd, "w+b") as file:
            bundle.pack(made.index["run_id"], made.members, file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise HostError(f"the bundle cannot be written: {error.strerror}", where=str(path)) from error
        raise
    return {"file": str(path), "bytes": size, "sha256": digest, **made.index}


def traces(home: Home, run_id: str) -> Iterator[dict[str, Any]]:
    """The run's traces as OTLP/JSON requests, secrets in their texts replaced; whole, or as far as the run has come."""
    for request in otlp.requests(_so_far(home.run(run_id)), __version__):
        secrets = redact.find_in_lines_of_json(json.dumps(request))
        spoken = tuple(secret for secret in secrets if not _is_id(secret.value))
        yield redact.replaced_in(request, spoken) if spoken else request


def _so_far(run_dir: Path) -> Iterator[Record]:
    """The records that stand now; an unfinished last line is none yet. HostError where the chain does not hold."""
    try:
        yield from chain.linked(chain.records(run_dir / bundle.JOURNAL))
    except ChainError as error:
        if error.rule != "torn":
            fix = f"inbounds verify {run_dir.name}"
            raise HostError(f"the journal does not hold: {error}", where=str(run_dir), fix=fix) from None
    except FileNotFoundError:
        raise OperatorError("the run has no journal yet", where=str(run_dir), fix="inbounds status") from None


def _is_id(value: str) -> bool:
    """Trace, span, commit and hash ids are hex of these lengths; the scanner takes some for keys."""
    return len(value) in (16, 32, 40, 64) and not set(value) - set("0123456789abcdef")


def _evidence(run_dir: Path) -> tuple[dict[str, bytes], list[Record] | str]:
    """What verifies only together, and the journal's records, or in words why they do not hold."""
    for _ in range(TRIES):
        files: dict[str, bytes] = {}
        for name in (bundle.JOURNAL, bundle.MANIFEST, bundle.CONTRACT, bundle.BLAST):
            _add(files, name, run_dir / name)
        if bundle.JOURNAL not in files:
            raise OperatorError("the run has no journal", where=str(run_dir), fix=f"inbounds status {run_dir.name}")
        again: dict[str, bytes] = {}
        _add(again, bundle.JOURNAL, run_dir / bundle.JOURNAL)
        if again == {bundle.JOURNAL: files[bundle.JOURNAL]}:
            return files, _records(files[bundle.JOURNAL])
    raise HostError("the journal grows while it is read", where=str(run_dir), fix="inbounds export again")


def _records(journal: bytes) -> list[Record] | str:
    *lines, torn = journal.split(b"\n")
    try:
        found = list(chain.linked(chain.decode(line, number) for number, line in enumerate(lines, 1)))
    except ChainError as error:
        return str(error)
    return "its last line has no end" if torn else found


def _allowed_signers(contract: bytes) -> tuple[bytes, str]:
    try:
        keys = json.loads(contract)["operator_keys"]
        return sshsig.allowed_signers({str(name): str(key) for name, key in keys.items()}).encode(), ""
    except (ValueError, KeyError, TypeError, AttributeError, InboundsError) as error:
        return b"", f"the contract names no operators' keys that can be read: {error}"[:200]


def _key(home: Home, facts: Facts | None) -> tuple[str, signing.Signer | None, str]:
    """The key that the journal names, a signer if this state directory holds it, or why not."""
    stated = str(facts.manifest["journal"]["key"]) if facts else NOT_OBSERVED
    if not (home.keys / "journal.key").exists():
        return _parsed(stated), None, "this state directory has no key that signs"
    signer = signing.open_signer(home.keys)
    if stated not in (NOT_OBSERVED, str(signer.key)):
        return _parsed(stated), None, "the journal names another key than this state directory holds"
    return str(signer.key), signer, ""


def _parsed(stated: str) -> str:
    try:
        return str(note.parse_key(stated))
    except note.NoteError:
        return ""


def _verifier(name: str) -> bytes | None:
    """A script of the independent verifier: shipped with the package, or in the checkout that this is run from."""
    place = importlib.resources.files("inbounds.export").joinpath(name)
    if place.is_file():
        return place.read_bytes()
    checkout = Path(__file__).resolve().parents[3] / DOCUMENTED[name]
    return checkout.read_bytes() if checkout.is_file() else None


def _add(files: dict[str, bytes], name: str, path: Path) -> None:
    """Read a regular file of ours through no link; one that is missing stays out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot be read: {error.strerror}", where=str(path)) from error
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise HostError("it is no regular file", where=str(path))
        content = file.read(bundle.MEMBER_BYTES_MAX + 1)
    if len(content) > bundle.MEMBER_BYTES_MAX:
        raise HostError(f"it is longer than {bundle.MEMBER_BYTES_MAX} bytes", where=str(path))
    files[name] = content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
