"""DSSE envelopes (secure-systems-lab/dsse v1.0.2): a payload with its type, signed together by one Ed25519 key.

Knows no key file and no statement's meaning. Opening an envelope needs the standard library alone, so that a bundle
verifies on a machine that has nothing else.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Protocol

from inbounds.contracts.canonical import canonical

PAYLOAD_TYPE = "application/vnd.in-toto+json"
# The longest statement here lists a run's legs, verdicts and findings; manifests of a long run reach some megabytes.
ENVELOPE_BYTES_MAX = 64 << 20
SIGNATURES_MAX = 16  # ours has one; a counter-signature or two may be added by others


class Signer(Protocol):
    """Whoever holds a journal's Ed25519 key; `name` is the key's, a hint for the verifier and nothing more."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    def sign_raw(self, message: bytes) -> bytes:
        """The 64 bytes of RFC 8032 over the message."""
        ...


class EnvelopeError(ValueError):
    """Not an envelope, or not signed by the key that was asked for."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what is signed, unambiguous for every type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sealed(statement: Mapping[str, Any], signer: Signer) -> bytes:
    """The envelope's bytes, RFC 8785; the same statement and key always give the same."""
    payload = canonical(dict(statement))
    signature = signer.sign_raw(pae(PAYLOAD_TYPE, payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": signer.name, "sig": base64.b64encode(signature).decode()}],
    }
    return canonical(envelope) + b"\n"


def opened(envelope: bytes, public: bytes) -> dict[str, Any]:
    """The statement in an envelope that `public` (32 bytes) signed; EnvelopeError for every other.

    Nothing of the payload is parsed before its signature holds.
    """
    from inbounds.journal import ed25519

    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise EnvelopeError(f"longer than {ENVELOPE_BYTES_MAX} bytes")
    try:
        value = json.loads(envelope)
        kind, payload = value["payloadType"], base64.b64decode(value["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in value["signatures"][:SIGNATURES_MAX]]
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise EnvelopeError(f"no DSSE envelope: {type(error).__name__}") from None
    if kind != PAYLOAD_TYPE:
        raise EnvelopeError(f"its payload is of type {str(kind)[:80]!r}, expected {PAYLOAD_TYPE}")
    if not any(ed25519.verify(public, pae(kind, payload), signature) for signature in signatures):
        raise EnvelopeError("no signature of it is by the journal's key")
    try:
        statement = json.loads(payload)
    except (ValueError, RecursionError):
        statement = None
    if not isinstance(statement, dict):
        raise EnvelopeError("its payload is no JSON object")
    return statement
