"""A bundle for audit: named members in one .tar.gz, the same bytes for the same members, whoever makes it and when.

Member names are this module's own and never a run's: nothing that an agent or a repository named becomes a path.
"""

import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from inbounds.contracts.ids import RUN_ID

FORMAT = "inbounds-bundle/1"
# What verifies only as it is; the rest is for people, and secrets in it are replaced.
JOURNAL, MANIFEST, CONTRACT, BLAST = "journal.jsonl", "manifest.json", "contract.json", "blast_radius.json"
ANCHORS, PUBLIC, SIGNERS = "anchors.jsonl", "keys/journal.pub", "keys/allowed_signers"
PATCH, REPORT = "diff.patch", "report.html"
INDEX, SUMS, README, VERIFIER = "index.json", "SHA256SUMS", "README.txt", "verify_independent.py"
PEOPLE = "verify_people.py"
SEALED = "attestations/bundle.dsse.json"
EVIDENCE = (JOURNAL, MANIFEST, CONTRACT, BLAST, ANCHORS)
RENDERED = (PATCH, REPORT)
# A week's journal at one record a second is some 600 MB; a member beyond this is copied by other means.
MEMBER_BYTES_MAX = 1 << 30
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.-]{1,64})?")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bundle; `what` says for whom it is, in a line."""

    name: str
    content: bytes
    what: str

    def __post_init__(self) -> None:
        """Refuse a name that could lead out of the directory it is unpacked into; these are all constants of ours."""
        if not _NAME.fullmatch(self.name) or ".." in self.name.split("/") or self.name.startswith("."):
            raise ValueError(f"{self.name!r} is no name of a bundle's member")

    @property
    def sha256(self) -> str:
        """Hex."""
        return hashlib.sha256(self.content).hexdigest()


def directory(run_id: str) -> str:
    """The one directory that a bundle unpacks into."""
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is no run's id")
    return f"inbounds-{run_id}"


def sums(members: Iterable[Member]) -> bytes:
    """The text that `sha256sum -c` reads (coreutils): two blanks, names relative to the bundle's directory."""
    return "".join(f"{member.sha256}  {member.name}\n" for member in _ordered(members)).encode()


def pack(run_id: str, members: Iterable[Member], out: IO[bytes]) -> None:
    """Write the .tar.gz: members by name, mode 0644, owner 0, time 0, no name of machine or person in any header."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member in _ordered(members):
            info = tarfile.TarInfo(f"{directory(run_id)}/{member.name}")
            info.size, info.mode, info.mtime = len(member.content), 0o644, 0
            archive.addfile(info, io.BytesIO(member.content))


def readme(run_id: str, state: str, key: str, about: Mapping[str, str]) -> bytes:
    """What an auditor reads first: what is here, how to check it with and without this program, what it proves."""
    lines = [
        f"Evidence of run {run_id} ({state}), made by inbounds.",
        "",
        "CHECK IT",
        "  1. The files are those that were packed:    sha256sum -c SHA256SUMS",
        "  2. With inbounds, offline, no HOME needed:  inbounds verify --dir .",
        f"  3. Without it (Python 3, openssl, ssh-keygen): python3 -I {VERIFIER} . and python3 -I {PEOPLE} .",
        "  4. The attestations are DSSE envelopes with in-toto Statements: any DSSE verifier takes them with the",
        "     Ed25519 key in keys/journal.pub (the last 32 bytes of the base64 after the second +). With inbounds:",
        "     python3 -I -m inbounds.export.check .",
        "",
        "WHOSE KEY",
        f"  This bundle names the journal's key itself: {key or 'none'}",
        "  Compare it with what the operator told you by other means; a forged bundle can bring a forged key.",
        "  People's signatures (plans, approvals) are SSH signatures; the contract binds keys/allowed_signers.",
        "",
        "WHAT IT PROVES",
        "  The journal has not been changed since its checkpoints and anchors were made. The manifest follows from the",
        "  journal, byte for byte. What the agent said is under agent_claims and proves nothing. Against the",
        "  operator's own account only anchors kept by somebody else count: see `source` in anchors.jsonl.",
        "",
        "WHAT IS HERE",
        *(f"  {name:<34} {what}" for name, what in sorted(about.items())),
        "",
        "index.json says which secrets were replaced where, and what is missing and why.",
        "",
    ]
    return "\n".join(lines).encode()


def _ordered(members: Iterable[Member]) -> list[Member]:
    found = sorted(members, key=lambda member: member.name)
    if len({member.name for member in found}) != len(found):
        raise ValueError("two members of one name")
    return found
