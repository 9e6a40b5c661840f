"""A reply's tool calls as hashes: 16 hex digits of SHA-256 over the canonical JSON {"arguments", "name"}, one a call.

So that the journal can tell the same call from another without holding what was called (H20). Arguments that stream are
assembled within limits; a call that did not arrive whole has no hash. Knows nothing of what a tool does.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inbounds.contracts.canonical import canonical

HASHES_MAX = 64  # of one reply; models ask for a handful at once, and a record stays below 2 kB
HASH_DIGITS = 16  # 64 bits: among the 1e5 calls of a long run two are alike by chance once in 3e9 runs
HELD_CHARS_MAX = 4 << 20  # of unfinished arguments at once; a file that a tool writes whole fits
# What is said beside a call's name and arguments changes from reply to reply.
_PASSING = frozenset({"id", "call_id", "status", "type", "name", "namespace"})


@dataclass(slots=True)
class _Open:
    name: str = ""
    parts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Calls:
    """The calls of one reply: begun, fed with pieces and ended by a key of the caller's, or given whole."""

    hashes: list[str] = field(default_factory=list)
    _open: dict[Hashable, _Open] = field(default_factory=dict)
    _held: int = 0

    def whole(self, name: str, arguments: Any) -> None:
        """A call with its arguments, as text or parsed."""
        if len(self.hashes) < HASHES_MAX:
            self.hashes.append(call_hash(name, arguments))

    def begin(self, key: Hashable, name: str) -> None:
        """A call is announced; saying it again only adds a name that was missing."""
        one = self._open.get(key)
        if one is None and len(self.hashes) + len(self._open) < HASHES_MAX:
            self._open[key] = _Open(name)
        elif one is not None and not one.name:
            one.name = name

    def piece(self, key: Hashable, text: Any) -> None:
        """More of a call's arguments, as text or, from some upstreams, parsed; what is too long has no hash."""
        one = self._open.get(key)
        if one is None or not text:
            return
        text = text if isinstance(text, str) else _text(text)
        if self._held + len(text) > HELD_CHARS_MAX:
            self._drop(key)
            return
        self._held += len(text)
        one.parts.append(text)

    def end(self, key: Hashable) -> None:
        """A call has arrived whole."""
        if (one := self._drop(key)) is not None:
            self.whole(one.name, "".join(one.parts))

    def end_all(self, choice: int) -> None:
        """All calls of one choice have arrived; keys are (choice, place)."""
        for key in [key for key in self._open if isinstance(key, tuple) and key[0] == choice]:
            self.end(key)

    def _drop(self, key: Hashable) -> _Open | None:
        one = self._open.pop(key, None)
        self._held -= sum(map(len, one.parts)) if one else 0
        return one


def call_hash(name: str, arguments: Any) -> str:
    """The hash of one call; text that is JSON counts by its value, so that spacing and key order say nothing.

    Arguments without an exact canonical form (a float, a number beyond 2^53) stand as their sorted JSON text.
    """
    name = name.encode("utf-8", "replace").decode("utf-8")
    arguments = _value(arguments or "") if isinstance(arguments, str | None) else arguments
    try:
        form = canonical({"arguments": arguments, "name": name})
    except (TypeError, ValueError, RecursionError):
        form = canonical({"arguments": _text(arguments), "name": name})
    return hashlib.sha256(form).hexdigest()[:HASH_DIGITS]


def item_of(item: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and arguments of an item of the Responses format: a function, a free-form tool, or a tool known by type."""
    name = str(item.get("name") or item.get("type"))
    if space := item.get("namespace"):
        name = f"{space}/{name}"
    for key in ("arguments", "input", "action"):
        if item.get(key) is not None:
            return name, item[key]
    return name, {key: value for key, value in item.items() if key not in _PASSING}


def _value(text: str) -> Any:
    if not text.strip():
        return {}  # a tool without parameters: some upstreams say {}, some nothing
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return ascii(value)
