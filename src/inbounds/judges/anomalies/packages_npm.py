"""JavaScript's manifests and lock files: package.json, npm's lock (versions 1 to 3), yarn's (both formats), pnpm's.

yarn's and pnpm's files are read by their lines, as their writers lay them out: neither needs a YAML parser, whose cost
a hostile file decides.
"""

import re
from collections.abc import Callable
from typing import Any

from inbounds.judges.anomalies.packages import Manifest, UnreadableError, host, json_of, table, text_of

USUAL = frozenset({"registry.npmjs.org", "registry.yarnpkg.com"})
_INSTALL = ("preinstall", "install", "postinstall", "preprepare", "prepare", "postprepare", "prepublish")
_GROUPS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_ELSEWHERE = re.compile(r"(git(\+\w+)?:|git@|https?:|github:|gitlab:|bitbucket:|gist:|file:|[\w.-]+/[\w.-]+(#|$))")
_LOCAL = re.compile(r"(workspace|link|portal|file):")
_NODES_MAX = 200_000
_YARN = re.compile(r'"?(@?[^@"\s]+)@[^\n]*:\s*$')
_YARN_FROM = re.compile(r'\s+(?:resolved|resolution:)\s+"([^"]+)"')
_PNPM = re.compile(r"""  ['"]?/?(@?[^@/'"\s]+(?:/[^@/'"\s(]+)?)[@/](\d[^:'"(\s]*)[^:]*['"]?:\s*$""")
_PNPM_FROM = re.compile(r"tarball:\s*['\"]?([^'\",}\s]+)")


def package_json(data: bytes) -> Manifest:
    """package.json: dependencies of every kind, overrides, and scripts that installing runs."""
    made, found = Manifest("npm"), json_of(data)
    if isinstance(found.get("name"), str):
        made.own.add(found["name"])
    for group in _GROUPS:
        for name, spec in table(found, group).items():
            _wanted(made, name, str(spec))
    for key in ("overrides", "resolutions"):
        for name, spec in table(found, key).items():
            if isinstance(spec, str) and _elsewhere(spec):
                made.sources[f"{name} from {host(spec)}"] = name
    for name, command in table(found, "scripts").items():
        if name in _INSTALL:
            made.scripts[name] = str(command)
    return made


def _wanted(made: Manifest, name: str, spec: str) -> None:
    if _LOCAL.match(spec):
        return  # another package of this same repository
    if spec.startswith("npm:"):  # an alias: what is fetched has the other name
        name = spec[4:].rpartition("@")[0] or spec[4:]
    made.require(name, spec[:200])
    if _elsewhere(spec):
        made.sources[f"{name} from {host(spec)}"] = name


def _elsewhere(spec: str) -> bool:
    return bool(_ELSEWHERE.match(spec)) and not _LOCAL.match(spec)


def package_lock(data: bytes) -> Manifest:
    """package-lock.json and npm-shrinkwrap.json."""
    made, found = Manifest("npm", lock=True), json_of(data)
    packages = table(found, "packages")
    for path, entry in packages.items():
        if "node_modules/" in path and isinstance(entry, dict) and not entry.get("link"):
            _locked(made, str(entry.get("name") or path.rpartition("node_modules/")[2]), entry)
    if not packages:
        todo, seen = [table(found, "dependencies")], 0
        while todo:
            for name, entry in todo.pop().items():
                seen += 1
                if seen > _NODES_MAX:
                    raise UnreadableError(f"more than {_NODES_MAX} entries")
                if isinstance(entry, dict):
                    _locked(made, name, entry)
                    todo.append(table(entry, "dependencies"))
    return made


def _locked(made: Manifest, name: str, entry: dict[str, Any]) -> None:
    made.lock_in(name, str(entry.get("version", ""))[:80])
    where = str(entry.get("resolved") or "")
    if not where and _elsewhere(str(entry.get("version", ""))):
        where = str(entry["version"])
    if where and host(where) not in USUAL and not _LOCAL.match(where):
        made.sources[f"{name} from {host(where)}"] = name
    if entry.get("hasInstallScript") is True:
        made.scripts[f"{name}'s own"] = "at installation"


def yarn_lock(data: bytes) -> Manifest:
    """yarn.lock of both formats: an entry begins at the line's start with NAME@RANGE and ends in a colon."""
    made, name = Manifest("npm", lock=True), ""
    for line in text_of(data).splitlines():
        if match := _YARN.match(line):
            name = "" if "@workspace:" in line else match[1]
            if name:
                made.lock_in(name, "")
        elif name and line.startswith("  version"):
            made.locked[name] = line.split(maxsplit=1)[-1].strip('": ')[:80]
        elif name and (where := _YARN_FROM.match(line)) and "://" in where[1] and host(where[1]) not in USUAL:
            made.sources[f"{name} from {host(where[1])}"] = name
    return made


def pnpm_lock(data: bytes) -> Manifest:
    """pnpm-lock.yaml: the keys of its section `packages`."""
    made, section = Manifest("npm", lock=True), ""
    name = ""
    for line in text_of(data).splitlines():
        if line and not line[0].isspace():
            section = line.split(":", 1)[0]
        elif section == "packages":
            if match := _PNPM.match(line):
                name = match[1]
                made.lock_in(name, match[2][:80])
            elif (where := _PNPM_FROM.search(line)) and host(where[1]) not in USUAL:
                made.sources[f"{name} from {host(where[1])}"] = name
            if "requiresBuild: true" in line:
                made.scripts[f"{name}'s own"] = "at installation"
    return made


FILES: tuple[tuple[re.Pattern[str], Callable[[bytes], Manifest]], ...] = (
    (re.compile(r"package\.json"), package_json),
    (re.compile(r"(package-lock|npm-shrinkwrap)\.json"), package_lock),
    (re.compile(r"yarn\.lock"), yarn_lock),
    (re.compile(r"pnpm-lock\.yaml"), pnpm_lock),
)
