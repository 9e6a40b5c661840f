"""Which dependency manifests of the base commit a thread's layer is built from, and the key that names the layer.

Pure: reads the bytes of the base commit only, so that nothing an agent writes reaches a layer (N8). Knows nothing of
building.
"""

import functools
import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from inbounds.contracts.canonical import digest
from inbounds.contracts.errors import OperatorError
from inbounds.deps import requirements

FORMAT = 1  # of a layer as built by build.py; a new number makes every layer anew
# Beside requirements.txt, the first of these that exists.
_TEST_FILES = tuple(
    pattern.format(name)
    for name in ("test", "tests", "testing", "dev", "development")
    for pattern in ("requirements-{}.txt", "requirements_{}.txt", "{}-requirements.txt", "requirements/{}.txt")
)
_BASE_FILES = ("requirements.txt", "requirements/base.txt", "requirements/requirements.txt")
_MANIFEST = re.compile(
    r"(.*/)?(pyproject\.toml|uv\.lock|package\.json|package-lock\.json|npm-shrinkwrap\.json"
    r"|[^/]*(requirements|constraints)[^/]*\.(txt|in)|requirements/[^/]+\.(txt|in))"
)


@dataclass(frozen=True, slots=True)
class Manifests:
    """One ecosystem's manifests: `kind` pip|uv|npm, `files` as the build sees them by bare name, `sources` as they are
    called in the repository, `locked` if every file to fetch is fixed by hash, `options` for the build (kind-specific).
    """

    kind: str
    directory: str
    files: Mapping[str, bytes]
    locked: bool
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def is_manifest(path: str) -> bool:
    """Whether `find` might read this path: what the caller must fetch from the base commit."""
    return _MANIFEST.fullmatch(path) is not None


def find(files: Mapping[str, bytes], thread: str = "") -> tuple[Manifests, ...]:
    """The manifests for a thread: its own directory's first, else the repository root's; at most one Python, one npm.

    OperatorError names file and line of what can't be built.
    """
    places = list(dict.fromkeys([thread.strip("/"), ""]))
    python = next((found for place in places if (found := _python(files, place))), None)
    node = next((found for place in places if (found := _npm(files, place))), None)
    return tuple(found for found in (python, node) if found)


def key(manifests: Iterable[Manifests], python: str, platform: str) -> str:
    """SHA-256 hex that names a layer: of every file's content, kind and options, of Python's version and the platform.

    Paths do not count, so that two threads with the same locks share a layer.
    """
    parts = [
        {
            "kind": m.kind,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in m.files.items()},
            "options": {name: list(value) for name, value in m.options.items()},
        }
        for m in manifests
    ]
    return digest({"format": FORMAT, "python": python, "platform": platform, "manifests": parts})


def _python(files: Mapping[str, bytes], place: str) -> Manifests | None:
    at = _at(place)
    if at("uv.lock") in files and at("pyproject.toml") in files:
        return _uv(files, place)
    base = next((at(name) for name in _BASE_FILES if at(name) in files), None)
    test = next((at(name) for name in _TEST_FILES if at(name) in files), None)
    chosen = [path for path in (base, test) if path]
    if chosen:
        parts = [requirements.from_file(path, files) for path in chosen]
        hashed = [part for part in parts if part.hashed]
        made = requirements.joined(hashed or parts)
        notes = list(made.notes)
        if hashed and len(hashed) < len(parts):
            left = [part.used[0] for part in parts if not part.hashed]
            notes.append(f"{', '.join(left)} left out: it has no hashes, and another file has")
        return Manifests("pip", place, {"requirements.txt": made.text}, made.hashed, made.used, tuple(notes))
    if at("pyproject.toml") in files:
        made = requirements.from_pyproject(at("pyproject.toml"), files[at("pyproject.toml")])
        if made.lines or "[project]" in requirements.text_of(place, files[at("pyproject.toml")]):
            return Manifests("pip", place, {"requirements.txt": made.text}, False, made.used, made.notes)
    return None


def _uv(files: Mapping[str, bytes], place: str) -> Manifests:
    at = _at(place)
    project, lock = at("pyproject.toml"), at("uv.lock")
    table = requirements.toml_of(project, files[project])
    locked = requirements.toml_of(lock, files[lock])
    for package in _list(locked.get("package")):
        source = package.get("source")
        if isinstance(source, dict) and not source.keys() & {"registry", "editable", "virtual", "directory"}:
            raise OperatorError(
                f"package {str(package.get('name'))[:80]!r} comes from {'/'.join(source)[:40]}",
                expected="packages of an index: the build reaches nothing else",
                where=lock,
            )
    own = table.get("project")
    extras = own.get("optional-dependencies") if isinstance(own, dict) else None
    groups = table.get("dependency-groups")
    options = {
        "extras": tuple(requirements.wanted(extras if isinstance(extras, dict) else {})),
        "groups": tuple(requirements.wanted(groups if isinstance(groups, dict) else {})),
    }
    content = {"pyproject.toml": files[project], "uv.lock": files[lock]}
    return Manifests("uv", place, content, True, (project, lock), (), options)


def _npm(files: Mapping[str, bytes], place: str) -> Manifests | None:
    at = _at(place)
    lock = next((at(name) for name in ("npm-shrinkwrap.json", "package-lock.json") if at(name) in files), None)
    manifest = at("package.json")
    if manifest not in files:
        return None
    if lock is None:
        note = f"{manifest} has no lock file beside it: nothing is installed (npm install would resolve by itself)"
        return Manifests("npm", place, {}, False, (manifest,), (note,))
    made, complete = _portable(lock, files[lock])
    content = {"package.json": files[manifest], "package-lock.json": made}
    return Manifests("npm", place, content, complete, (manifest, lock))


def _portable(path: str, data: bytes) -> tuple[bytes, bool]:
    """The lock without the addresses it was made with: integrity decides what is right, the proxy where it is from."""
    try:
        lock = json.loads(requirements.text_of(path, data))
        packages = lock["packages"]
        entries = list(packages.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OperatorError(
            "no npm lock file of version 2 or 3", fix="npm install --package-lock-only", where=path
        ) from None
    complete = True
    for name, entry in entries:
        if not name or not isinstance(entry, dict) or entry.get("link") or not name.startswith("node_modules"):
            continue
        resolved = str(entry.get("resolved", ""))
        if resolved and not re.match(r"https?://", resolved):
            raise OperatorError(
                f"{name[:120]} is fetched from {resolved[:120]!r}", expected="packages of a registry", where=path
            )
        entry.pop("resolved", None)
        complete = complete and (bool(entry.get("integrity")) or bool(entry.get("inBundle")))
    lock.pop("dependencies", None)  # version 2 repeats everything for old clients, addresses included
    return json.dumps(lock, indent=1).encode(), complete


def _at(place: str) -> Callable[[str], str]:
    return functools.partial(posixpath.join, place)


def _list(value: object) -> list[dict[str, object]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
