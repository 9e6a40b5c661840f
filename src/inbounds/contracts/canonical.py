"""Canonical JSON (RFC 8785) for the values this project hashes: no floats, integers below 2^53.

Standard library only, because the journal and its verifier use it; tests/contracts checks it against the rfc8785
package.
"""

import hashlib
import json
from typing import Any

from inbounds.contracts.units import INTEGER_MAX


def canonical(value: Any) -> bytes:
    """Encode as RFC 8785 bytes; TypeError or ValueError for what has no exact canonical form here."""
    return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def digest(value: Any) -> str:
    """SHA-256 of the canonical form, lower-case hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _ordered(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise ValueError(f"{value} does not fit a canonical number (2^53-1)")
        return int(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON has string keys, found {type(key).__name__}")
        return {str(k): _ordered(value[k]) for k in sorted(value, key=lambda k: k.encode("utf-16-be"))}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    raise TypeError(f"canonical JSON here has no {type(value).__name__}; money and time are integers")
