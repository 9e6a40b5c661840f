"""Python's manifests and lock files: requirements, pyproject.toml, setup.cfg, setup.py, Pipfile, uv, poetry, pdm.

Names are compared as PEP 503 normalizes them. Executes nothing: of setup.py only literals are read.
"""

import ast
import configparser
import re
from collections.abc import Callable, Iterator
from typing import Any

from inbounds.judges.anomalies.packages import (
    Manifest,
    UnreadableError,
    host,
    json_of,
    table,
    tables,
    text_of,
    texts,
    toml_of,
)

USUAL = frozenset({"pypi.org", "pypi.python.org", "files.pythonhosted.org"})
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_FROM = re.compile(r"(?:git|hg|svn|bzr)\+|https?://|file:|\.{0,2}/", re.IGNORECASE)
_PLACES = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "-i", "-f")
_SETUP = frozenset({"install_requires", "extras_require", "setup_requires", "tests_require"})
_SETUP_BYTES_MAX = 1 << 20  # a setup.py is a page; a syntax tree takes a hundred times the text's memory


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirement(made: Manifest, text: str) -> None:
    match = _NAME.match(text)
    if not match:
        return
    name, rest = normal(match[1]), match[2].split(";", 1)[0].strip()
    made.require(name, rest[:200])
    if rest.startswith("@"):
        made.sources[f"{name} from {host(rest[1:])}"] = name


def requirements(data: bytes) -> Manifest:
    """requirements*.txt and .in (pip's requirements file format)."""
    made = Manifest("python")
    for raw in re.sub(r"\\\r?\n", " ", text_of(data)).splitlines():
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line:
            continue
        option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", "")
        if option in _PLACES:
            if host(value) not in USUAL:
                made.sources[f"packages from {host(value)}"] = ""
        elif option in {"-e", "--editable"} or (not option and _FROM.match(line)):
            where = value if option else line
            if _FROM.match(where) and not where.startswith("."):
                made.sources[f"a package from {host(where)}"] = ""
        elif not option:
            _requirement(made, line.split(" --", 1)[0])
    return made


def pyproject(data: bytes) -> Manifest:
    """pyproject.toml: PEP 621, PEP 735, build requirements, and the tables of poetry, uv, pdm and hatch."""
    made, found = Manifest("python"), toml_of(data)
    project, tool = table(found, "project"), table(found, "tool")
    if isinstance(project.get("name"), str):
        made.own.add(normal(project["name"]))
    lists = [project.get("dependencies"), table(found, "build-system").get("requires")]
    lists += [*table(project, "optional-dependencies").values(), *table(found, "dependency-groups").values()]
    lists += [*table(tool, "pdm", "dev-dependencies").values(), table(tool, "uv").get("dev-dependencies")]
    for env in table(tool, "hatch", "envs").values():
        lists += [table(env).get("dependencies"), table(env).get("extra-dependencies")]
    for entry in lists:
        for text in texts(entry):
            _requirement(made, text)
    _poetry(made, table(tool, "poetry"))
    for name, source in table(tool, "uv", "sources").items():
        for one in [source] if isinstance(source, dict) else tables(source):
            if where := one.get("git") or one.get("url"):
                made.sources[f"{normal(name)} from {host(str(where))}"] = normal(name)
    for index in [*tables(table(tool, "uv").get("index")), *tables(table(tool, "poetry").get("source"))]:
        if host(str(index.get("url", ""))) not in USUAL:
            made.sources[f"packages from {host(str(index.get('url', '')))}"] = ""
    return made


def _poetry(made: Manifest, poetry: dict[str, Any]) -> None:
    groups = [poetry.get("dependencies"), poetry.get("dev-dependencies")]
    groups += [table(group).get("dependencies") for group in table(poetry, "group").values()]
    for group in groups:
        _named(made, group)


def _named(made: Manifest, group: Any) -> None:
    """A table of name = range, or of name = {version, git, url, ...}."""
    for name, spec in table(group).items():
        if name == "python":
            continue
        entry = spec if isinstance(spec, dict) else {}
        made.require(normal(name), str(entry.get("version", "") if entry else spec)[:200])
        if where := entry.get("git") or entry.get("url") or entry.get("file"):
            made.sources[f"{normal(name)} from {host(str(where))}"] = normal(name)


def setup_cfg(data: bytes) -> Manifest:
    """setup.cfg of setuptools."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text_of(data))
    except configparser.Error as error:
        raise UnreadableError(f"no configuration file: {str(error)[:120]}") from None
    made = Manifest("python")
    made.own.add(normal(parser.get("metadata", "name", fallback="")))
    keys = [("options", key) for key in _SETUP - {"extras_require"}]
    if parser.has_section("options.extras_require"):
        keys += [("options.extras_require", key) for key in parser["options.extras_require"]]
    for section, key in keys:
        for line in parser.get(section, key, fallback="").splitlines():
            _requirement(made, line.split("#", 1)[0].strip())
    return made


def setup_py(data: bytes) -> Manifest:
    """The literals of setup(): a list given in place, or by the name of a list of the module's own."""
    made = Manifest("python")
    text = text_of(data)
    if len(text) > _SETUP_BYTES_MAX:
        raise UnreadableError(f"a setup.py of {len(text)} characters")
    try:
        module = ast.parse(text)
        nodes = list(ast.walk(module))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"no Python: {type(error).__name__}") from None
    lists = {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if isinstance(node, ast.keyword) and node.arg == "name":
            made.own.update(normal(text) for text in _literals(lists.get(getattr(node.value, "id", ""), node.value)))
        if isinstance(node, ast.keyword) and node.arg in _SETUP:
            value = lists.get(node.value.id, node.value) if isinstance(node.value, ast.Name) else node.value
            for text in _literals(value):
                _requirement(made, text)
    return made


def _literals(value: ast.expr) -> Iterator[str]:
    """Texts in lists and tuples, and in those that are a dict's values."""
    items = [*value.values] if isinstance(value, ast.Dict) else [value]
    for item in items:
        parts = item.elts if isinstance(item, (ast.List, ast.Tuple, ast.Set)) else [item]
        yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def pipfile(data: bytes) -> Manifest:
    """Pipfile."""
    made, found = Manifest("python"), toml_of(data)
    for group in (found.get("packages"), found.get("dev-packages")):
        _named(made, group)
    for source in tables(found.get("source")):
        if host(str(source.get("url", ""))) not in USUAL:
            made.sources[f"packages from {host(str(source.get('url', '')))}"] = ""
    return made


def pipfile_lock(data: bytes) -> Manifest:
    """Pipfile.lock."""
    made, found = Manifest("python", lock=True), json_of(data)
    for group in ("default", "develop"):
        for name, entry in table(found, group).items():
            made.lock_in(normal(name), str(table(entry).get("version", ""))[:80])
            if where := table(entry).get("git") or table(entry).get("file"):
                made.sources[f"{normal(name)} from {host(str(where))}"] = normal(name)
    for source in tables(table(found, "_meta").get("sources")):
        if host(str(source.get("url", ""))) not in USUAL:
            made.sources[f"packages from {host(str(source.get('url', '')))}"] = ""
    return made


def lock(data: bytes) -> Manifest:
    """uv.lock, poetry.lock and pdm.lock: an array of packages, each with its source where it is not the index."""
    made, found = Manifest("python", lock=True), toml_of(data)
    for package in tables(found.get("package")):
        name = normal(str(package.get("name", "")))
        source = table(package, "source")
        if source.keys() & {"editable", "virtual", "directory"} and "git" not in source:
            made.own.add(name)
            continue
        made.lock_in(name, str(package.get("version", ""))[:80])
        where = next((str(source[key]) for key in ("git", "url", "registry") if key in source), "")
        where = where or str(package.get("git") or package.get("url") or "")
        if where and host(where) not in USUAL:
            made.sources[f"{name} from {host(where)}"] = name
    return made


FILES: tuple[tuple[re.Pattern[str], Callable[[bytes], Manifest]], ...] = (
    (re.compile(r"([^/]*requirements[^/]*\.(txt|in)|.*requirements/[^/]+\.(txt|in))"), requirements),
    (re.compile(r"pyproject\.toml"), pyproject),
    (re.compile(r"setup\.cfg"), setup_cfg),
    (re.compile(r"setup\.py"), setup_py),
    (re.compile(r"Pipfile"), pipfile),
    (re.compile(r"Pipfile\.lock"), pipfile_lock),
    (re.compile(r"(uv|poetry|pdm)\.lock"), lock),
)
