"""New dependencies, sources and installation scripts: a manifest before against the same after (H18).

A package is new if no manifest of its ecosystem in the base names it, so that moving a list from one file to another is
nothing new. What cannot be read is a finding, never an exception.
"""

import posixpath
import re
from collections.abc import Callable, Iterator

from inbounds.judges.anomalies import packages_npm, packages_other, packages_python
from inbounds.judges.anomalies.material import Base, Changed, Material, Signal, some
from inbounds.judges.anomalies.packages import BYTES_MAX, Manifest, UnreadableError

Parser = Callable[[bytes], Manifest]
FILES = (*packages_python.FILES, *packages_npm.FILES, *packages_other.FILES)
MANIFESTS_MAX = 200  # of one base that are read to know what is known already
_FOREIGN = re.compile(r"(^|/)(node_modules|site-packages|vendor|third_party|_vendor)/")  # vendored.py's concern


def parser(path: str) -> Parser | None:
    """What reads this path, None for what is no manifest."""
    name = posixpath.basename(path)
    for expression, parse in FILES:
        if expression.fullmatch(name) or ("/" in expression.pattern and expression.fullmatch(path)):
            return parse
    return None


def signals(material: Material) -> Iterator[Signal]:
    """Every rule about manifests and lock files."""
    read: list[tuple[Changed, Manifest, Manifest]] = []
    for change in material.changes:
        parse = parser(change.path)
        if parse is None or not change.regular or _FOREIGN.search(change.path):
            continue
        try:
            new = _parsed(parse, change.new, change.new_size)
        except UnreadableError as error:
            yield Signal("manifest_unread", change.path, str(error))
            continue
        read.append((change, _before(parse, change, new.ecosystem), new))
    known = _Known(material.base)
    # A new direct dependency explains what it brings along, and is blocked (or declared) by itself; a range does not.
    explained = {new.ecosystem for _, old, new in read if not new.lock and new.direct.keys() - old.direct.keys()}
    for change, old, new in read:
        yield from _packages(change, old, new, known, material, explained)
        yield from _places(change, old, new, known)


def _parsed(parse: Parser, data: bytes | None, size: int) -> Manifest:
    if data is None:
        raise UnreadableError(f"{size} bytes, at most {BYTES_MAX} are read")
    return parse(data)


def _before(parse: Parser, change: Changed, ecosystem: str) -> Manifest:
    """The old file's content; an unreadable old file explains nothing, so that all of the new one is new."""
    if change.old is None:
        return Manifest(ecosystem)
    try:
        return parse(change.old)
    except UnreadableError:
        return Manifest(ecosystem)


class _Known:
    """What the base's manifests name, by ecosystem; read once, when something seems new."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._found: dict[str, Manifest] | None = None

    def of(self, ecosystem: str) -> Manifest:
        if self._found is None:
            self._found = {}
            paths = [path for path in self._base.paths if parser(path) and not _FOREIGN.search(path)]
            for path in paths[:MANIFESTS_MAX]:
                self._add(path)
        return self._found.get(ecosystem, Manifest(ecosystem))

    def _add(self, path: str) -> None:
        parse, data = parser(path), self._base.read(path)
        if parse is None or data is None or self._found is None:
            return
        try:
            one = parse(data)
        except UnreadableError:
            return  # it explains nothing: what it may name counts as new
        all_of = self._found.setdefault(one.ecosystem, Manifest(one.ecosystem))
        all_of.direct |= one.direct
        all_of.locked |= one.locked
        all_of.sources |= one.sources
        all_of.own |= one.own


def _packages(
    change: Changed, old: Manifest, new: Manifest, known: _Known, material: Material, explained: set[str]
) -> Iterator[Signal]:
    for rule, before, after in (("dependency", old.direct, new.direct), ("locked", old.locked, new.locked)):
        fresh = [name for name in after if name not in before and name not in new.own]
        if fresh:
            base = known.of(new.ecosystem)
            fresh = [n for n in fresh if n not in base.direct and n not in base.locked and n not in base.own]
        declared = [name for name in fresh if name.lower() in material.declared.dependencies]
        if declared and rule == "dependency":
            yield Signal(rule, change.path, f"new, as the plan says: {some(declared)}", declared=True)
        fresh = [name for name in fresh if name not in declared]
        if fresh:
            lock_rule = "dependency_locked" if new.ecosystem in explained else "dependency_lock_only"
            named = [f"{name} {after[name]}".strip() for name in fresh]
            yield Signal(rule if rule == "dependency" else lock_rule, change.path, f"new: {some(named)}")
        moved = [f"{n} {before[n]} -> {after[n]}" for n in after if n in before and before[n] != after[n]]
        if moved:
            yield Signal("dependency_changed", change.path, f"{len(moved)} changed: {some(moved)}")


def _places(change: Changed, old: Manifest, new: Manifest, known: _Known) -> Iterator[Signal]:
    places = [place for place in new.sources if place not in old.sources]
    if places:
        base = known.of(new.ecosystem).sources
        # a place from which the base takes something already is no new place for another package
        hosts = {place.rpartition(" from ")[2] for place in base} if new.lock else set()
        places = [place for place in places if place not in base and place.rpartition(" from ")[2] not in hosts]
    if places:
        yield Signal("dependency_source", change.path, f"new: {some(places)}")
    scripts = [f"{name}: {command[:160]}" for name, command in new.scripts.items() if old.scripts.get(name) != command]
    if scripts:
        yield Signal("install_script", change.path, f"at installation, {some(scripts)}")
