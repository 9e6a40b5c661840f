"""What a manifest or lock file says, in one form for every ecosystem, and the limits within which one is read (H18).

Parsing lies in packages_python.py, packages_npm.py and packages_other.py; what follows from it in dependencies.py.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

BYTES_MAX = 16 << 20  # the largest public lock files have about ten megabytes
DEPTH_MAX = 100  # real manifests are less than ten deep; npm's first lock format nests a little more
SPEC_CHARS_MAX = 400  # a range has a dozen
NAMES_MAX = 200_000  # ten times the largest lock file that was found


class UnreadableError(ValueError):
    """A manifest that cannot be read; its text says why, in a few words."""


@dataclass(slots=True)
class Manifest:
    """`direct` and `locked` map a package's name to its range or version; `sources` are places other than the usual
    registry, `scripts` what runs at installation, `own` the names that the project itself has.
    """

    ecosystem: str
    lock: bool = False
    direct: dict[str, str] = field(default_factory=dict)
    locked: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)

    def require(self, name: str, spec: str) -> None:
        """Add a direct dependency; two entries of one name are kept together."""
        self.direct[name] = _joined(self.direct.get(name), spec)
        self._bounded()

    def lock_in(self, name: str, version: str) -> None:
        """Add a locked package."""
        self.locked[name] = _joined(self.locked.get(name), version)
        self._bounded()

    def _bounded(self) -> None:
        if len(self.direct) + len(self.locked) > NAMES_MAX:
            raise UnreadableError(f"more than {NAMES_MAX} packages")


def _joined(one: str | None, other: str) -> str:
    """Two ranges of one name; what is beyond a few is left out, since a file may name one package without end."""
    return other if one is None else one if len(one) > SPEC_CHARS_MAX else f"{one} | {other}"


def text_of(data: bytes) -> str:
    """The text, without a mark at its start; UnreadableError where it is not UTF-8 or too long."""
    if len(data) > BYTES_MAX:
        raise UnreadableError(f"{len(data)} bytes, at most {BYTES_MAX} are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None


def json_of(data: bytes) -> dict[str, Any]:
    """A JSON object within the limits."""
    try:
        found = json.loads(text_of(data))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"no JSON: {_why(error)}") from None
    return _checked(found)


def toml_of(data: bytes) -> dict[str, Any]:
    """A TOML document within the limits."""
    try:
        found = tomllib.loads(text_of(data))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"no TOML: {_why(error)}") from None
    return _checked(found)


def table(value: Any, *keys: str) -> dict[str, Any]:
    """The table at these keys, {} where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> Iterator[str]:
    """The texts in a list, [] where it is none."""
    return (item for item in value if isinstance(item, str)) if isinstance(value, list) else iter(())


def tables(value: Any) -> Iterator[dict[str, Any]]:
    """The tables in a list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def host(url: str) -> str:
    """The host of an address, the text itself where it has none; never a credential."""
    plain = re.sub(r"^(git\+|registry\+|sparse\+|svn\+|hg\+|bzr\+)", "", url.strip())
    try:
        found = urlsplit(plain).hostname
    except ValueError:
        found = None
    return found or re.sub(r"^[^@/\s]*@", "", plain)[:120]


def _checked(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UnreadableError(f"a {type(found).__name__} where a table belongs")
    level: list[Any] = [found]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return found
    raise UnreadableError(f"nested deeper than {DEPTH_MAX}")


def _why(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
