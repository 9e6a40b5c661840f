"""Signed notes, the checkpoints in them and the keys that verify them, as text (C2SP signed-note, tlog-checkpoint).

Knows the text forms and Ed25519 signatures; not which key is to be trusted, nor whether a root is a journal's.
Strict: one text has one reading, and what this project never writes (extension lines in a checkpoint) is refused.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from inbounds.contracts.units import INTEGER_MAX
from inbounds.journal import ed25519

ORIGIN = "inbounds.invalid/run/"  # the checkpoint's first line, the run's id after it
# A checkpoint is 200 characters; the rest is room for the cosignatures of witnesses, some 120 characters each.
NOTE_BYTES_MAX = 16 << 10
SIGNATURES_MAX = 32
NAME_CHARS_MAX = 128  # ours have 25; a witness's name is a host and a path
ORIGIN_CHARS_MAX = 256
SIGNATURE_BYTES_MAX = 4 << 10  # post-quantum witnesses sign with up to 3,309 bytes
_ED25519 = b"\1"
_ID_BYTES, _PUBLIC_BYTES, _ROOT_BYTES = 4, 32, 32
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_VERIFIER = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{44})")


class NoteError(ValueError):
    """A text that is no signed note, checkpoint or verifier key, or one whose signature does not hold."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key (32 bytes) under the name by which notes refer to it."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key), its first four bytes: says which key, proves nothing."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        """`<name>+<8 hex digits>+<base64>`, as it stands in `keys/journal.pub` and in `run.accepted`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"


class Signature(NamedTuple):
    """One signature line: whose it claims to be, and its bytes after the key's id."""

    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """`text` ends with a newline and is what is signed; nothing about the signatures was checked yet."""

    text: str
    signatures: tuple[Signature, ...]


class Checkpoint(NamedTuple):
    """A tree's size and root (32 bytes), under the name of the log that it is of."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        """The note's text, with its last newline."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def key_name(public: bytes) -> str:
    """The name of one of our keys: `inbounds-<first 16 hex digits of SHA-256 of the public key>`."""
    return f"inbounds-{hashlib.sha256(public).hexdigest()[:16]}"


def parse_key(text: str) -> VerifierKey:
    """Read a verifier key (one line, a newline at its end allowed); NoteError for another type than Ed25519."""
    found = _VERIFIER.fullmatch(text.removesuffix("\n"))
    if found is None or not _is_name(found[1]):
        raise NoteError(f"{text[:80]!r} is no verifier key: <name>+<8 hex digits>+<base64>")
    raw = _unbase64(found[3], "a verifier key")
    if raw[:1] != _ED25519 or len(raw) != 1 + _PUBLIC_BYTES:
        raise NoteError(f"the key {found[1]} is not Ed25519")
    key = VerifierKey(found[1], raw[1:])
    if key.key_id.hex() != found[2]:
        raise NoteError(f"the key {found[1]} has the id {key.key_id.hex()}, it states {found[2]}")
    return key


def write(text: str, key: VerifierKey, signature: bytes) -> str:
    """The note: text, empty line, one signature line. NoteError for what could not be read back."""
    line = base64.b64encode(key.key_id + signature).decode()
    note = f"{text}\n— {key.name} {line}\n"
    if parse(note).text != text:
        raise NoteError("the text would be read back as another one")
    return note


def parse(note: str) -> Note:
    """Take a note apart; NoteError for anything that is not exactly one. The text ends at the last empty line."""
    raw = _encoded(note)
    if len(raw) > NOTE_BYTES_MAX:
        raise NoteError(f"a note of {len(raw)} bytes, at most {NOTE_BYTES_MAX}")
    if any(byte < 0x20 and byte != 0x0A for byte in raw):  # noqa: PLR2004 - control characters, but for the newline
        raise NoteError("the note has control characters")
    text, gap, below = note.rpartition("\n\n")
    if not gap or not text or not below.endswith("\n"):
        raise NoteError("the note is not a text, an empty line and signature lines")
    lines = below[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError(f"the note has {len(lines)} signatures, at most {SIGNATURES_MAX}")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def opened(note: str, key: VerifierKey) -> str:
    """The note's text, if `key` signed it; NoteError otherwise. Other keys' signatures are left alone.

    Every signature that claims this key's name and id must hold, and there must be one.
    """
    found = parse(note)
    mine = [s.signature for s in found.signatures if s.name == key.name and s.key_id == key.key_id]
    if not mine:
        raise NoteError(f"the note is not signed by {key.name}")
    if not all(ed25519.verify(key.public, found.text.encode(), signature) for signature in mine):
        raise NoteError(f"the signature by {key.name} does not hold")
    return found.text


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text as a checkpoint: origin, size, root, each on its line, and nothing more."""
    if len(text) > NOTE_BYTES_MAX:
        raise NoteError(f"a checkpoint of {len(text)} characters, at most {NOTE_BYTES_MAX}")
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004 - three lines, each with its end
        raise NoteError("a checkpoint is three lines: origin, size, root")
    origin, size, root, _ = lines
    if not 0 < len(origin) <= ORIGIN_CHARS_MAX or not origin.isprintable():
        raise NoteError("the checkpoint has no origin")
    if not _SIZE.fullmatch(size) or int(size) > INTEGER_MAX:
        raise NoteError(f"{size[:40]!r} is no tree size")
    raw = _unbase64(root, "a root")
    if len(raw) != _ROOT_BYTES:
        raise NoteError(f"a root of {len(raw)} bytes")
    return Checkpoint(origin, int(size), raw)


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _is_name(parts[1]):  # noqa: PLR2004 - dash, name, signature
        raise NoteError(f"{line[:80]!r} is no signature line")
    if len(parts[2]) > SIGNATURE_BYTES_MAX * 2:
        raise NoteError(f"a signature of {len(parts[2])} characters")
    raw = _unbase64(parts[2], "a signature")
    if not _ID_BYTES < len(raw) <= SIGNATURE_BYTES_MAX:
        raise NoteError(f"a signature of {len(raw)} bytes")
    return Signature(parts[1], raw[:_ID_BYTES], raw[_ID_BYTES:])


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_CHARS_MAX and "+" not in name and name.isprintable() and len(name.split()) == 1


def _unbase64(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{text[:60]!r} is not base64, where {what} is due") from None
    if base64.b64encode(raw).decode() != text:  # bits left over at the end: a second form of the same bytes
        raise NoteError(f"{text[:60]!r} is not the base64 of its bytes")
    return raw


def _encoded(note: str) -> bytes:
    try:
        return note.encode()
    except UnicodeEncodeError:
        raise NoteError("the note is no Unicode text") from None
