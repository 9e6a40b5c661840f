"""The two manifests whose name alone can't tell: which parts of package.json or pyproject.toml a change touches.

Only what describes a package to people is harmless; every other part is, or names, something that is executed. What
cannot be read the same way by everybody (damage, doubled keys, depth) counts as everything. Runs nothing.
"""

import json
import posixpath
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

from inbounds.judges.planted import folded

BYTES_MAX = 1 << 20  # a manifest is a page or two; a larger one is not parsed
PARTS_SHOWN_MAX = 5  # in a sentence
PART_CHARS_MAX = 60  # somebody else's words
# What no tool executes, opens or chooses by. Not "name" (a workspace resolves by it), "private" or "type"; not
# [project] license or readme, which name files.
_JSON_TEXT = frozenset({"version", "description", "keywords", "author", "contributors", "license", "homepage", "bugs"})
_TOML_TEXT = frozenset(
    {"version", "description", "keywords", "authors", "maintainers", "license", "classifiers", "urls"}
)


def named(path: str) -> bool:
    """Whether contents count for this path, which must have the manifest's exact name."""
    return posixpath.basename(path) in _READERS and posixpath.basename(folded(path)) in _READERS


def executing(path: str, old: bytes | None, new: bytes | None) -> tuple[str, ...] | None:
    """Parts that differ and could lead to execution, () where none does; None where contents can't tell.

    None also for a new or vanished manifest: that it is there changes what tools do with the directory.
    """
    if old is None or new is None or not named(path):
        return None
    read, text = _READERS[posixpath.basename(path)]
    try:
        return tuple(part for part in _differing(read(old), read(new)) if part not in text)
    except (ValueError, RecursionError):  # every error of both parsers is a ValueError, and a hostile depth the other
        return None


def shown(parts: Iterable[str]) -> str:
    """Some of the parts for a sentence."""
    all_parts = [part[:PART_CHARS_MAX] for part in parts]
    more = len(all_parts) - PARTS_SHOWN_MAX
    return ", ".join(all_parts[:PARTS_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _json(raw: bytes) -> dict[str, Any]:
    """The object's keys; ValueError for what is none, or has a key twice at any depth: parsers differ on which wins."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key stands twice")
        return made

    found = json.loads(_text(raw), object_pairs_hook=once)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - one kind of error for whatever cannot be read
    return found


def _toml(raw: bytes) -> dict[str, Any]:
    """One key for each key of [project] and [tool], "project.x" and "tool.x", and one for each other table."""
    parts: dict[str, Any] = {}
    for key, value in tomllib.loads(_text(raw)).items():
        if key in {"project", "tool"} and isinstance(value, dict):
            parts |= {f"{key}.{inner}": more for inner, more in value.items()}
        else:
            parts[key] = value
    return parts


def _text(raw: bytes) -> str:
    if len(raw) > BYTES_MAX:
        raise ValueError(f"{len(raw)} bytes")
    return raw.decode("utf-8")


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        key for key in {**before, **after} if (key in before) != (key in after) or not _same(before[key], after[key])
    ]


def _same(one: Any, other: Any) -> bool:
    """Equal in order and type, too: 1 is not true, and the order of keys is the order of exports' conditions."""
    return repr(one) == repr(other)


_Reader = Callable[[bytes], dict[str, Any]]
_READERS: dict[str, tuple[_Reader, frozenset[str]]] = {
    "package.json": (_json, _JSON_TEXT),
    "pyproject.toml": (_toml, frozenset(f"project.{key}" for key in _TOML_TEXT)),
}
