"""How a repository's tests are run, found in its own files: pytest, node's runner, vitest; Go and Cargo are named.

Each answer says which file and line it comes from. Runs nothing, imports nothing of the repository.
"""

import configparser
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import OperatorError

FILE_BYTES_MAX = 1 << 20  # a manifest that a person writes
ENTRIES_MAX = 20_000  # files looked at below one directory before "no tests" is the answer
SKIPPED = frozenset(
    {"node_modules", "venv", "env", "build", "dist", "target", "__pycache__", "site-packages", "vendor"}
)

# A jail has no shell history or profile; sh only puts the variables' values into the arguments. The reporter comes with
# inbounds: before version 22 node's own does not say in which file a test stands.
NODE = (
    "sh",
    "-c",
    'exec node --test --test-reporter="$INBOUNDS_NODE_REPORTER" --test-reporter-destination="$INBOUNDS_JUNIT"',
)
VITEST = ("sh", "-c", 'exec npx --no-install vitest run --reporter=junit --outputFile="$INBOUNDS_JUNIT"')


@dataclass(frozen=True, slots=True)
class TestCommand:
    """One way to run tests. `runner` is pytest, junit (the command writes $INBOUNDS_JUNIT) or "" for not supported yet.

    `paths` and `pythonpath` are relative to the repository; `source` is file:line, `why` what was seen there.
    """

    __test__ = False  # pytest: a name that begins with Test, but no test

    runner: str
    language: str
    command: tuple[str, ...]
    paths: tuple[str, ...]
    pythonpath: tuple[str, ...]
    source: str
    why: str


@dataclass(frozen=True, slots=True)
class _Settings:
    """pytest's own settings as one file gives them."""

    testpaths: tuple[str, ...]
    pythonpath: tuple[str, ...]
    source: str
    why: str


def find(top: str | os.PathLike[str], thread: str = "") -> tuple[TestCommand, ...]:
    """Every way found for the thread's directory ("" for the repository), the most telling first.

    OperatorError for a manifest that is no TOML, INI or JSON.
    """
    root = Path(top)
    found = [*_python(root, thread.strip("/")), *_node(root, thread.strip("/"))]
    for manifest, language, command in (
        ("go.mod", "Go", ("go", "test", "./...")),
        ("Cargo.toml", "Rust", ("cargo", "test")),
    ):
        for place in _places(root, thread.strip("/")):
            if (place / manifest).is_file():
                source = f"{_relative(root, place / manifest)}:1"
                found.append(TestCommand("", language, command, (), (), source, f"{language} is not supported yet"))
                break
    return tuple(found)


def _places(root: Path, thread: str) -> list[Path]:
    """The thread's directory first, then those above it up to the top."""
    here = root / thread
    return [here, *[up for up in here.parents if up.is_relative_to(root)]] if thread else [root]


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _text(root: Path, path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as fault:
        raise OperatorError(
            str(fault.strerror), expected="a file that can be read", where=_relative(root, path)
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise OperatorError("too large", expected=f"at most {FILE_BYTES_MAX} bytes", where=_relative(root, path))
    return raw.decode("utf-8", "replace")


def _line(text: str, start: str) -> int:
    """The number of the first line that begins with `start`, 1 if there is none."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start)), 1)


def _words(value: Any) -> tuple[str, ...]:
    """A list of strings, or one string of words, as pytest reads both."""
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _settings(root: Path, place: Path) -> _Settings | None:
    """Pytest's settings in one directory, from the file that pytest itself would take."""
    for name, section in (("pytest.ini", "pytest"), (".pytest.ini", "pytest")):
        if (place / name).is_file():
            return _ini(root, place / name, section) or _Settings((), (), f"{_relative(root, place / name)}:1", name)
    if (place / "pyproject.toml").is_file() and (read := _toml(root, place / "pyproject.toml")):
        return read
    for name, section in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        if (place / name).is_file() and (read := _ini(root, place / name, section)):
            return read
    return None


def _ini(root: Path, path: Path, section: str) -> _Settings | None:
    text, where = _text(root, path), _relative(root, path)
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as fault:
        raise OperatorError(str(fault).splitlines()[0], expected="an INI file", where=where) from None
    if not parser.has_section(section):
        return None
    values = parser[section]
    source = f"{where}:{_line(text, f'[{section}]')}"
    return _Settings(_words(values.get("testpaths", "")), _words(values.get("pythonpath", "")), source, f"[{section}]")


def _toml(root: Path, path: Path) -> _Settings | None:
    text, where = _text(root, path), _relative(root, path)
    try:
        tool = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as fault:
        raise OperatorError(str(fault), expected="a TOML file", where=where) from None
    section = tool.get("pytest") if isinstance(tool, dict) else None
    if not isinstance(section, Mapping):
        return None
    older = section.get("ini_options")
    values = older if isinstance(older, Mapping) else section
    name = "tool.pytest.ini_options" if isinstance(older, Mapping) else "tool.pytest"
    source = f"{where}:{_line(text, f'[{name}')}"
    return _Settings(_words(values.get("testpaths")), _words(values.get("pythonpath")), source, f"[{name}]")


def _python(root: Path, thread: str) -> list[TestCommand]:
    told: _Settings | None = None
    place = root / thread
    for place in _places(root, thread):
        if told := _settings(root, place):
            break
    below = root / thread
    tests = _test_files(below)
    if not tests and not told:
        return []
    if told:
        under = _relative(root, place)
        paths = tuple(os.path.normpath(os.path.join(under, path)) for path in told.testpaths)
        # A thread runs its own tests: of the paths that the whole repository names, those in its directory.
        paths = tuple(path for path in paths if not thread or path == thread or path.startswith(f"{thread}/"))
        pythonpath = tuple(os.path.normpath(os.path.join(under, path)) for path in told.pythonpath)
        source, why = told.source, told.why
    else:
        first = _relative(root, tests[0])
        paths, pythonpath, source, why = (), (), f"{first}:1", "a file named test_*.py"
    if not paths:
        # Directories named "tests" or "test", else the directory itself.
        named = {
            _relative(root, up) for file in tests for up in file.parents if up.name in ("tests", "test") and up != root
        }
        paths = tuple(sorted(p for p in named if not any(p != q and p.startswith(f"{q}/") for q in named))) or (
            thread or ".",
        )
    if (hint := _source_layout(root, thread)) and hint not in pythonpath:
        pythonpath = (*pythonpath, hint)
    return [TestCommand("pytest", "Python", ("python", "-m", "pytest"), paths, pythonpath, source, why)]


def _source_layout(root: Path, thread: str) -> str:
    """The `src` directory of a src layout, from which the tests import what is not installed."""
    for place in _places(root, thread):
        src = place / "src"
        marked = any((place / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg"))
        if marked and src.is_dir() and not (src / "__init__.py").exists() and any(src.glob("*/__init__.py")):
            return _relative(root, src)
    return ""


def _test_files(below: Path) -> list[Path]:
    """Files that pytest would collect by name, up to a handful; hidden and vendored directories are left out."""
    found: list[Path] = []
    seen = 0
    for here, directories, files in os.walk(below):
        directories[:] = sorted(d for d in directories if not d.startswith(".") and d not in SKIPPED)
        seen += len(files) + len(directories)
        found += [
            Path(here) / name
            for name in sorted(files)
            if name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
        ]
        if seen > ENTRIES_MAX:
            break
    return found


def _node(root: Path, thread: str) -> list[TestCommand]:
    for place in _places(root, thread):
        path = place / "package.json"
        if path.is_file():
            return _package(root, path)
    return []


def _package(root: Path, path: Path) -> list[TestCommand]:
    text, where = _text(root, path), _relative(root, path)
    try:
        package = json.loads(text)
    except ValueError as fault:
        raise OperatorError(str(fault), expected="a JSON file", where=where) from None
    scripts = package.get("scripts") if isinstance(package, dict) else None
    script = scripts.get("test") if isinstance(scripts, dict) else None
    if not isinstance(script, str) or "no test specified" in script:
        return []
    source, why = f"{where}:{_line(text, chr(34) + 'test' + chr(34))}", f"npm test is: {script}"
    place = _relative(root, path.parent)
    words = script.split()
    if "vitest" in words:
        return [TestCommand("junit", "JavaScript", VITEST, (place,), (), source, why)]
    if words[:1] == ["node"] and "--test" in words:
        return [TestCommand("junit", "JavaScript", NODE, (place,), (), source, why)]
    unsupported = f"{why}; no JUnit report is known for it: set tests.command in config.yaml"
    return [TestCommand("", "JavaScript", ("npm", "test"), (place,), (), source, unsupported)]
