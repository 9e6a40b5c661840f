"""Manifests and lock files of Go, Cargo and Maven.

Gradle's are programs and not read; that such a file changed is a security-critical path's concern.
"""

import re
from collections.abc import Callable
from typing import Any

from inbounds.judges.anomalies.packages import (
    DEPTH_MAX,
    Manifest,
    UnreadableError,
    host,
    table,
    tables,
    text_of,
    toml_of,
)

_CRATES = frozenset({"github.com/rust-lang/crates.io-index", "index.crates.io", "crates.io"})
_GO_WORD = re.compile(r'"?([^\s"]+)"?\s+(v[^\s/]+)')
_GO_REPLACE = re.compile(r"\s*(\S+)(?:\s+v\S+)?\s+=>\s+(\S+)")
_ELEMENTS_MAX = 100_000
_MAVEN = frozenset({"repo.maven.apache.org", "repo1.maven.org"})


def go_mod(data: bytes) -> Manifest:
    """go.mod: require and replace, one to a line or in blocks."""
    made, block = Manifest("go"), ""
    for raw in text_of(data).splitlines():
        line = raw.split("//", 1)[0].strip()
        word = block or line.split(maxsplit=1)[0] if line else ""
        rest = line if block else line[len(word) :].strip()
        if line == ")":
            block = ""
        elif line.endswith("(") and not block:
            block = line[:-1].strip()
        elif word == "require" and (match := _GO_WORD.match(rest)):
            made.require(match[1], match[2])
        elif word == "replace" and (match := _GO_REPLACE.match(rest)) and not match[2].startswith("."):
            made.sources[f"{match[1]} from {match[2][:120]}"] = match[1]
        elif word == "module":
            made.own.add(rest.strip('"'))
    return made


def go_sum(data: bytes) -> Manifest:
    """go.sum: module, version and hash."""
    made = Manifest("go", lock=True)
    for line in text_of(data).splitlines():
        words = line.split()
        if len(words) == 3 and not words[1].endswith("/go.mod"):  # noqa: PLR2004 - its three columns
            made.lock_in(words[0], words[1])
    return made


def cargo_toml(data: bytes) -> Manifest:
    """Cargo.toml: every table of dependencies, a target's and a workspace's included, and patches."""
    made, found = Manifest("cargo"), toml_of(data)
    name = table(found, "package").get("name")
    if isinstance(name, str):
        made.own.add(name)
    places = [found, table(found, "workspace"), *[table(target) for target in table(found, "target").values()]]
    for place in places:
        for key in ("dependencies", "dev-dependencies", "build-dependencies", "dev_dependencies", "build_dependencies"):
            for crate, spec in table(place, key).items():
                _crate(made, crate, spec)
    for patched in [*table(found, "patch").values(), table(found, "replace")]:
        for crate, spec in table(patched).items():
            if where := table(spec).get("git"):
                made.sources[f"{crate} from {host(str(where))}"] = crate
    return made


def _crate(made: Manifest, name: str, spec: Any) -> None:
    entry = spec if isinstance(spec, dict) else {"version": str(spec)}
    if entry.get("workspace") is True or ("path" in entry and "git" not in entry):
        return  # named by the workspace's own table, or another crate of this repository
    crate = str(entry.get("package") or name)
    made.require(crate, str(entry.get("version", ""))[:80])
    if where := entry.get("git") or entry.get("registry") or entry.get("registry-index"):
        made.sources[f"{crate} from {host(str(where))}"] = crate


def cargo_lock(data: bytes) -> Manifest:
    """Cargo.lock: packages; one without a source is the repository's own."""
    made = Manifest("cargo", lock=True)
    for package in tables(toml_of(data).get("package")):
        name, source = str(package.get("name", "")), str(package.get("source", ""))
        if not source:
            made.own.add(name)
            continue
        made.lock_in(name, str(package.get("version", ""))[:80])
        if not any(usual in source for usual in _CRATES):
            made.sources[f"{name} from {host(source)}"] = name
    return made


def pom(data: bytes) -> Manifest:
    """pom.xml: dependencies, plugins and extensions as group:artifact, the parent, and repositories."""
    import defusedxml
    from defusedxml.ElementTree import ParseError, fromstring

    made = Manifest("maven")
    depth, deepest = 0, 0
    for tag in re.finditer(rb"<(/?)[A-Za-z][^<>]*?(/?)>", data):
        depth += -1 if tag[1] else 0 if tag[2] else 1
        deepest = max(deepest, depth)
    if deepest > DEPTH_MAX:
        raise UnreadableError(f"nested deeper than {DEPTH_MAX}")
    try:
        root = fromstring(text_of(data), forbid_dtd=True)
    except (ParseError, defusedxml.DefusedXmlException, ValueError) as error:
        raise UnreadableError(f"no XML of Maven's: {type(error).__name__}") from None
    for count, element in enumerate(root.iter()):
        if count > _ELEMENTS_MAX:
            raise UnreadableError(f"more than {_ELEMENTS_MAX} elements")
        said = {_local(child.tag): (child.text or "").strip() for child in element}
        kind = _local(element.tag)
        if kind in {"dependency", "plugin", "extension", "parent"} and "artifactId" in said:
            group = said.get("groupId") or "org.apache.maven.plugins"
            made.require(f"{group}:{said['artifactId']}"[:200], said.get("version", "")[:80])
        elif kind in {"repository", "pluginRepository"} and said.get("url") and host(said["url"]) not in _MAVEN:
            made.sources[f"packages from {host(said['url'])}"] = ""
    return made


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


FILES: tuple[tuple[re.Pattern[str], Callable[[bytes], Manifest]], ...] = (
    (re.compile(r"go\.mod"), go_mod),
    (re.compile(r"go\.sum"), go_sum),
    (re.compile(r"Cargo\.toml"), cargo_toml),
    (re.compile(r"Cargo\.lock"), cargo_lock),
    (re.compile(r"pom\.xml|.*\.pom"), pom),
)
