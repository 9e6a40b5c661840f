"""Composes a run's bundle: evidence as it is, readable members without secrets, statements signed over both.

Pure but for the scanner: bytes in, members out. Refuses to pack evidence that holds a secret unless told to, because
evidence can't be changed without ceasing to be evidence.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import RefusedError
from inbounds.export import bundle, dsse, redact, statement
from inbounds.export.bundle import Member

WHAT = {
    bundle.JOURNAL: "the journal: one record a line, hash-chained, with signed checkpoints",
    bundle.MANIFEST: "what the journal comes to: the run on one page, for machines",
    bundle.CONTRACT: "the contract that the run was bound to, and who signed it",
    bundle.BLAST: "what the run could affect at most",
    bundle.ANCHORS: "heads of the journal that were kept elsewhere",
    bundle.PUBLIC: "the journal's public key (C2SP note format)",
    bundle.SIGNERS: "the operators' public keys (ssh-keygen's format)",
    bundle.PATCH: "what the run changed, as a patch",
    bundle.REPORT: "the report, for a browser; no script, nothing from elsewhere",
    bundle.VERIFIER: "an independent verifier: Python's standard library and openssl",
    bundle.PEOPLE: "the same for people's signatures: Python's standard library and ssh-keygen",
}
MISSING = {
    bundle.ANCHORS: "no head was kept outside the run's directory",
    bundle.PATCH: "the run left no diff",
    bundle.REPORT: "the report was never made",
    bundle.VERIFIER: "this installation ships no independent verifier",
    bundle.PEOPLE: "this installation ships no independent verifier",
    bundle.PUBLIC: "the journal has no signing key",
}
# A whole JSON string of 40 or 64 hex digits is the name of an object or a hash; the scanner takes some for keys.
_HASH = re.compile(r'"([0-9a-f]{40}|[0-9a-f]{64})"')
FINDINGS_MAX = 200  # listed; all are counted


@dataclass(frozen=True, slots=True)
class Source:
    """What a bundle is made of; `files` by member name, each present or left out; `facts` None for a broken journal.

    `public` is the line of keys/journal.pub, "" for none; `unsigned` says why there is no `signer`.
    """

    run_id: str
    state: str
    files: Mapping[str, bytes]
    facts: statement.Facts | None
    public: str = ""
    signer: dsse.Signer | None = None
    unsigned: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle's members, and its index as plain data."""

    members: tuple[Member, ...]
    index: dict[str, Any]


def compose(source: Source, *, force: bool = False) -> Made:
    """Every member of the bundle. RefusedError when evidence holds what looks like a secret, unless `force`."""
    texts = {name: content.decode("utf-8", "surrogateescape") for name, content in source.files.items()}
    public = frozenset(_HASH.findall(texts.get(bundle.JOURNAL, "") + texts.get(bundle.CONTRACT, "")))
    secrets: set[redact.Secret] = set()
    held: list[dict[str, Any]] = []
    for name, text in texts.items():
        if name not in (*bundle.EVIDENCE, *bundle.RENDERED):
            continue
        look = redact.find_in_lines_of_json if name in bundle.EVIDENCE else redact.find
        found = [secret for secret in look(text) if secret.value not in public]
        secrets |= {redact.Secret(secret.rule, 0, secret.value) for secret in found}
        if name in bundle.EVIDENCE:
            held += [{"member": name, "line": one.line, "rule": one.rule, "sha256": one.mark} for one in found]
    if held and not force:
        raise RefusedError(
            f"the evidence holds {len(held)} credential(s) by their form, first: {held[0]['rule']} in "
            f"{held[0]['member']} line {held[0]['line']} (SHA-256 {held[0]['sha256']})",
            where=source.run_id,
            expected="evidence that can be handed on: it verifies only unchanged, so nothing in it can be replaced",
            fix="revoke the credential, then inbounds export RUN --force",
        )
    return _made(source, texts, tuple(sorted(secrets, key=lambda one: (one.rule, one.value))), held)


def _made(
    source: Source, texts: Mapping[str, str], secrets: tuple[redact.Secret, ...], held: list[dict[str, Any]]
) -> Made:
    members, replaced = [], dict[str, dict[str, int]]()
    for name, content in source.files.items():
        kept = content
        if name in bundle.RENDERED:
            text, counts = redact.replaced(texts[name], secrets)
            if counts:
                kept, replaced[name] = text.encode("utf-8", "surrogateescape"), counts
        members.append(Member(name, kept, WHAT[name]))
    attested, left_out = _attested(source)
    members += attested
    missing = {name: why for name, why in MISSING.items() if name not in source.files}
    index = {
        "format": bundle.FORMAT,
        "run_id": source.run_id,
        "state": source.state,
        "members": [{"name": m.name, "bytes": len(m.content), "sha256": m.sha256, "what": m.what} for m in members],
        "missing": {**missing, **source.missing, **left_out},
        "redacted": replaced,
        "secrets_in_evidence": {"count": len(held), "listed": held[:FINDINGS_MAX]},
    }
    about = {member.name: member.what for member in members} | {bundle.INDEX: "this list, for machines"}
    members += [
        Member(bundle.INDEX, json.dumps(index, indent=1, sort_keys=True).encode() + b"\n", about[bundle.INDEX]),
        Member(bundle.README, bundle.readme(source.run_id, source.state, source.public, about), "how to check this"),
    ]
    if source.signer is not None:
        names = {member.name: member.sha256 for member in members}
        whole = statement.bundle(names, {"format": bundle.FORMAT, "run_id": source.run_id, "state": source.state})
        members.append(Member(bundle.SEALED, dsse.sealed(whole, source.signer), "every member's hash, signed"))
    members.append(Member(bundle.SUMS, bundle.sums(members), "for sha256sum -c"))
    return Made(tuple(members), index)


def _attested(source: Source) -> tuple[list[Member], dict[str, str]]:
    """Statements in signed envelopes, and why those that are missing are."""
    if source.facts is None or source.signer is None:
        why = source.unsigned or "the journal does not hold: nothing can be attested"
        return [], {"attestations/": why}
    made = {
        "run": (statement.run(source.facts), ""),
        "tests": (statement.tests(source.facts), statement.NO_TESTS),
        "review": (statement.review(source.facts), "no judge spoke about a tree"),
        "promotion": (statement.promotion(source.facts), "the gate was never asked"),
    }
    members, left_out = [], {}
    for name, (found, why) in made.items():
        path = f"attestations/{name}.dsse.json"
        if found is None:
            left_out[path] = why
        else:
            members.append(Member(path, dsse.sealed(found, source.signer), f"in-toto: {found['predicateType']}"))
    return members, left_out
