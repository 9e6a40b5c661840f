"""Python requirement files and pyproject tables, parsed from a base commit's bytes into lines that pip may be given.

Only what an index can answer is kept: options that name other places are dropped and noted, requirements by URL or path
are refused by file and line. Knows nothing of where files come from or how pip is run.
"""

import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from inbounds.contracts.errors import OperatorError

FILE_BYTES_MAX = 8 << 20  # uv.lock of a very large project is about 2 MB
DEPTH_MAX = 8  # files that include files
LINES_MAX = 20_000
TEST_NAMES = ("test", "tests", "testing", "dev", "development")  # extras and groups that tests are likely to need
_DROPPED = ("-i", "--index-url", "--extra-index-url", "--find-links", "-f", "--trusted-host", "--no-index", "--pre")
_ELSEWHERE = re.compile(r"^(\S+\s*@\s*)?(git|hg|svn|bzr|https?|file|ssh)(\+\w+)?:|.*\s@\s+\w+(\+\w+)?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Requirements:
    """`lines` for one requirement file, `hashed` if every one carries a hash, `pinned` if every one has ==, `notes` on
    what was left out.
    """

    lines: tuple[str, ...]
    hashed: bool
    pinned: bool
    notes: tuple[str, ...] = ()
    used: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The file for pip."""
        return "".join(line + "\n" for line in self.lines).encode()


def text_of(path: str, data: bytes) -> str:
    """Decode a manifest; OperatorError naming it if it is too large or no UTF-8."""
    if len(data) > FILE_BYTES_MAX:
        raise OperatorError(f"{len(data)} bytes", expected=f"at most {FILE_BYTES_MAX}", where=path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OperatorError(f"no UTF-8: {error.reason}", where=path) from None


def toml_of(path: str, data: bytes) -> dict[str, object]:
    """Parse TOML; OperatorError naming the place."""
    try:
        return tomllib.loads(text_of(path, data))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError(f"no valid TOML: {error}", where=path) from None


def from_file(path: str, files: Mapping[str, bytes]) -> Requirements:
    """One requirement file with those that it includes (-r); constraint files (-c) are noted and not applied.

    OperatorError for an include that is not in `files`, a requirement by URL, or an option that is not known.
    """
    gathered = _Gathered(files)
    gathered.take(path, 0)
    return _summed(gathered.lines, gathered.notes, gathered.used)


def _summed(lines: list[str], notes: list[str], used: list[str]) -> Requirements:
    unique = tuple(dict.fromkeys(lines))
    hashed = bool(unique) and all("--hash=" in line for line in unique)
    pinned = all("==" in line for line in unique)
    return Requirements(unique, hashed, pinned, tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(used)))


def joined(parts: list[Requirements]) -> Requirements:
    """Several files as one."""
    return _summed(
        [line for part in parts for line in part.lines],
        [note for part in parts for note in part.notes],
        [path for part in parts for path in part.used],
    )


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Lines of a file and its includes, in order, as they are read."""

    files: Mapping[str, bytes]
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def take(self, path: str, depth: int) -> None:
        """Read one file; a file that was read already adds nothing."""
        if path not in self.files:
            raise OperatorError(f"{path} is not in the base commit", where=self.used[-1] if self.used else path)
        if depth > DEPTH_MAX or len(self.lines) > LINES_MAX:
            raise OperatorError("too many nested requirement files or lines", where=path)
        if path not in self.used:
            self.used.append(path)
            for number, line in _logical(text_of(path, self.files[path])):
                self._line(path, number, line, depth)

    def _line(self, path: str, number: int, line: str, depth: int) -> None:
        where = f"{path}:{number}"
        option = re.split(r"[ =]", line, maxsplit=1)[0]
        rest = line[len(option) :].lstrip(" =")
        if option in {"-r", "--requirement"}:
            self.take(posixpath.normpath(posixpath.join(posixpath.dirname(path), rest)), depth + 1)
        elif option in {"-c", "--constraint"}:
            self.notes.append(f"{where}: constraint file {rest} is not applied")
        elif option in {"-e", "--editable"} or line.startswith((".", "/")):
            if _ELSEWHERE.match(rest):
                raise _by_url(where, line)
            self.notes.append(f"{where}: {line} is left out: the project stands on PYTHONPATH instead")
        elif option in _DROPPED:
            self.notes.append(f"{where}: {option} is left out: everything comes through the configured index")
        elif option in {"--require-hashes", "--prefer-binary"}:
            return
        elif option.startswith("-"):
            raise OperatorError(f"option {option}", expected="requirements, -r, -c or -e", where=where)
        elif _ELSEWHERE.match(line):
            raise _by_url(where, line)
        else:
            self.lines.append(line)


def _by_url(where: str, line: str) -> OperatorError:
    return OperatorError(
        f"{line[:120]!r} is fetched from a URL",
        expected="a name that the package index knows: the build reaches nothing else",
        fix="publish it to the configured index, or vendor it",
        where=where,
    )


def _logical(text: str) -> list[tuple[int, str]]:
    """Lines joined at backslashes, comments off, with the number of their first physical line."""
    made: list[tuple[int, str]] = []
    buffer, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        start = start or number
        if raw.rstrip().endswith("\\") and not raw.lstrip().startswith("#"):
            buffer += raw.rstrip()[:-1] + " "
            continue
        line = re.sub(r"(^|\s)#.*$", "", buffer + raw).strip()
        if line:
            made.append((start, re.sub(r"\s+", " ", line)))
        buffer, start = "", 0
    if buffer.strip():
        made.append((start, re.sub(r"\s+", " ", buffer).strip()))
    return made


def from_pyproject(path: str, data: bytes) -> Requirements:
    """[project] dependencies with the extras and groups that tests are likely to need; OperatorError if malformed."""
    table = toml_of(path, data)
    project = _mapping(table.get("project"))
    found = _strings(project.get("dependencies"), f"{path}: project.dependencies")
    extras = _mapping(project.get("optional-dependencies"))
    groups = _mapping(table.get("dependency-groups"))
    for name in wanted(extras):
        found += _strings(extras[name], f"{path}: optional-dependencies.{name}")
    for name in wanted(groups):
        found += _group(groups, name, path, 0)
    own = re.sub(r"[-_.]+", "-", str(project.get("name", ""))).lower()
    notes: list[str] = []
    kept: list[str] = []
    for line in found:
        bare = re.split(r"[\s\[<>=!~;@(]", line, maxsplit=1)[0]
        if own and re.sub(r"[-_.]+", "-", bare).lower() == own:
            notes.append(f"{path}: {line} names the project itself and is left out")
        elif _ELSEWHERE.match(line) or line.startswith("-"):
            raise _by_url(path, line)
        else:
            kept.append(line)
    return _summed(kept, notes, [path])


def wanted(tables: Mapping[str, object]) -> list[str]:
    """Names of extras or groups that tests are likely to need."""
    return [name for name in tables if name.lower() in TEST_NAMES]


def _group(groups: Mapping[str, object], name: str, path: str, depth: int) -> list[str]:
    entries = groups.get(name)
    if depth > DEPTH_MAX or not isinstance(entries, list):
        raise OperatorError(f"dependency group {name!r}", expected="a list, without a cycle of includes", where=path)
    found: list[str] = []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            found += _group(groups, entry["include-group"], path, depth + 1)
        else:
            found += _strings([entry], f"{path}: dependency-groups.{name}")
    return found


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _strings(value: object, where: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, str) and "\n" not in v for v in value):
        raise OperatorError("not a list of requirement strings", where=where)
    return [v.strip() for v in value]
