"""Libraries copied into the tree: package directories, bundles, minified code (H18).

By paths, and by the shape of what is new; one signal a directory. Updating what the base vendors already shows in the
size of the diff, and a changed bundle has a rule of its own.
"""

import posixpath
import re
from collections.abc import Iterator

from inbounds.judges.anomalies.material import Changed, Material, Signal, extension

_HOMES = re.compile(
    r"(?:^|.*/)(node_modules|bower_components|vendor|vendors|_vendor|third[_-]?party|site-packages|dist-packages|extern"
    r"|external|externals|Pods|Carthage|jspm_packages|web_modules)/(@[^/]+/[^/]+|[^/]+)(/|$)",
    re.IGNORECASE,
)
_META = re.compile(r".*\.dist-info/(METADATA|RECORD)")  # of an installed package; an egg-info is the project's own
_BUNDLE = re.compile(r".*[.-](min|bundle|prod)\.(js|css|mjs|cjs)|.*\.(umd|iife)\.js", re.IGNORECASE)
_LICENCE = re.compile(r"(licen[cs]e|copying)([.-].*)?", re.IGNORECASE)
_PACKAGE = frozenset(
    {
        "package.json",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "Cargo.toml",
        "go.mod",
        "pom.xml",
        "__init__.py",
        "CMakeLists.txt",
    }
)
MINIFIED_BYTES_MIN = 8_000  # a shorter file is read by a person, whatever its line length
MINIFIED_LINE_MEAN = 500  # characters; code that people write stays below 120


def signals(material: Material) -> Iterator[Signal]:
    """New library directories, distribution metadata, bundles and minified code."""
    new = [change for change in material.changes if change.regular and change.status in {"A", "R"}]
    homes = dict.fromkeys(home for change in new if (home := _home(change.path)))
    copied = dict.fromkeys(_copied(new))
    # Asked only where there is something to ask: a base has many paths, and a change few.
    held = _held(material, {*homes, *copied}) if homes or copied else set()
    seen = {home: None for home in homes if home not in held}
    for home in seen:
        yield Signal("vendored", home, "a library's directory that the base does not have")
    for directory in copied:
        if directory not in held and _home(f"{directory}/x") not in seen:
            yield Signal("vendored", directory, "a new directory with its own licence and package files")
    for change in material.changes:
        if change.regular and _home(change.path) not in seen:
            why = _bundle(change)
            if why:
                known_one = change.status == "M" and change.old is not None
                yield Signal("bundle_changed" if known_one else "vendored", change.path, why)


def _home(path: str) -> str:
    """The directory of the library that a path belongs to, "" for none."""
    if _META.fullmatch(path):
        return posixpath.dirname(path)
    match = _HOMES.match(path)
    return match[0].rstrip("/") if match else ""


def _held(material: Material, directories: set[str]) -> set[str]:
    """Those of the directories (or single files) that the base has something of."""
    held: set[str] = set()
    for path in material.base.paths:
        place = path
        while place:
            if place in directories:
                held.add(place)
            place = posixpath.dirname(place)
    return held


def _copied(new: list[Changed]) -> Iterator[str]:
    licences = {posixpath.dirname(c.path) for c in new if _LICENCE.fullmatch(posixpath.basename(c.path))}
    packages = {posixpath.dirname(c.path) for c in new if posixpath.basename(c.path) in _PACKAGE}
    below = {posixpath.dirname(directory) for directory in packages}  # src layouts: the licence stands one above
    yield from sorted(d for d in licences & (packages | below) if d)


def _bundle(change: Changed) -> str:
    name = posixpath.basename(change.path)
    if _BUNDLE.fullmatch(name):
        return "a bundle or minified code by its name"
    if extension(change.path) not in {"js", "mjs", "cjs", "css"} or change.new is None:
        return ""
    lines = change.new.count(b"\n") + 1
    if len(change.new) < MINIFIED_BYTES_MIN or len(change.new) // lines < MINIFIED_LINE_MEAN:
        return ""
    return f"minified code: {lines} line(s) of {len(change.new) // lines} characters in the mean"
