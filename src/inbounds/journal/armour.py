"""What an SSH signature says, and whether it holds, without ssh-keygen: PROTOCOL.sshsig, Ed25519 keys only.

Standard library only, so that the verifier starts no process. Making signatures, and every other type of key, is for
`journal.sshsig`, which has ssh-keygen do it.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

from inbounds.journal import ed25519

ARMOUR_CHARS_MAX = 16_384  # an RSA signature of 16,384 bits has 6,000
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_MAGIC, _VERSION = b"SSHSIG", b"\0\0\0\1"
ED25519 = b"ssh-ed25519"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


class ArmourError(ValueError):
    """A text that is no SSH signature."""


class Armoured(NamedTuple):
    """The fields of the signature; `public` and `signature` are SSH wire blobs (type first)."""

    public: bytes
    namespace: str
    hash_name: bytes
    signature: bytes

    def key_type(self) -> bytes:
        """Such as ssh-ed25519; ArmourError for what is no key."""
        return _take(self.public)[0]


def parse(text: str) -> Armoured:
    """Take an armoured signature apart; ArmourError for anything that is not exactly one."""
    lines = text.strip().split("\n") if len(text) <= ARMOUR_CHARS_MAX else []
    if len(lines) < 3 or (lines[0], lines[-1]) != (_BEGIN, _END):  # noqa: PLR2004 - begin, at least one, end
        raise ArmourError("no armoured SSH signature")
    try:
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        raise ArmourError("its armour is not base64") from None
    if raw[:10] != _MAGIC + _VERSION:
        raise ArmourError("no SSH signature of version 1")
    rest, fields = raw[10:], []
    for _ in range(5):
        field, rest = _take(rest)
        fields.append(field)
    public, namespace, reserved, hash_name, signature = fields
    if rest or reserved:
        raise ArmourError("more stands in it than its fields")
    return Armoured(public, namespace.decode("utf-8", "replace"), hash_name, signature)


def holds(found: Armoured, message: bytes) -> bool:
    """Whether an Ed25519 signature is over `message`; ArmourError for another type of key or an unknown hash."""
    key_type, key = _take(found.public)
    signature_type, signature = _take(found.signature)
    public, no_more = _take(key)
    raw, no_more_either = _take(signature)
    if key_type != ED25519 or signature_type != ED25519 or no_more or no_more_either:
        raise ArmourError(f"a key of type {key_type[:40].decode('ascii', 'replace')}, not ssh-ed25519")
    if found.hash_name not in _HASHES:
        raise ArmourError("an unknown hash")
    digest = _HASHES[found.hash_name](message).digest()
    signed = (found.namespace.encode(), b"", found.hash_name, digest)
    return ed25519.verify(public, _MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in signed), raw)


def public_blob(line: str) -> bytes:
    """The wire form of a public key as authorized_keys has it (`type base64 [comment]`); ArmourError for none."""
    parts = line.split()
    try:
        raw = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        raise ArmourError("no SSH public key") from None
    if _take(raw)[0] != parts[0].encode():
        raise ArmourError("a public key of another type than it states")
    return raw


def _take(raw: bytes) -> tuple[bytes, bytes]:
    """The first string of SSH wire data and the rest."""
    length = int.from_bytes(raw[:4], "big")
    if len(raw) < 4 or length > len(raw) - 4:  # noqa: PLR2004 - the length's own bytes
        raise ArmourError("it ends in the middle of a field")
    return raw[4 : 4 + length], raw[4 + length :]
