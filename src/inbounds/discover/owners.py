"""Who answers for a path: CODEOWNERS, else who committed to it, else the person whose git this is (A1, B17).

A bot is never an owner (O7). Says where each answer comes from; knows nothing of keys or policy.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import OperatorError
from inbounds.store import git

# Where the forges look, in their order; the first file found is the one in force.
PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
FILE_BYTES_MAX = 3 << 20  # the forges' own limit
COMMITS_MAX = 500  # who worked on it lately says more than who began it
_BOT = re.compile(
    r"\[bot\]|^@?(?:dependabot|renovate|github-actions|gitlab-bot|pre-commit-ci|greenkeeper|snyk-bot|copilot)\b"
    r"|\bbot@|^(?:no-?reply|automation|ci)@|[-_]bot$|^root@",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of CODEOWNERS; no owners means: nobody answers for what matches."""

    pattern: str
    owners: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owners of a path, persons and teams only; `source` is file:line or the git command that told."""

    owners: tuple[str, ...]
    source: str
    refused: tuple[str, ...] = ()  # bots that were named there


def is_bot(name: str) -> bool:
    """Whether a name or address is a program's (O7)."""
    return any(_BOT.search(part.strip(" <>")) for part in name.strip().rpartition("<"))


def rules(top: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """The rules of the CODEOWNERS file in force, in its order; OperatorError for one that can't be read."""
    for place in PLACES:
        path = Path(top) / place
        if path.is_file():
            return _parsed(path, place)
    return ()


def _parsed(path: Path, place: str) -> tuple[Rule, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as fault:
        raise OperatorError(f"{fault.strerror}", expected="a file that can be read", where=place) from None
    if len(raw) > FILE_BYTES_MAX:
        raise OperatorError("too large", expected=f"at most {FILE_BYTES_MAX} bytes", where=place)
    found: list[Rule] = []
    section: tuple[str, ...] = ()
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        words = re.split(r"(?<!\\)#", line, maxsplit=1)[0].strip()
        if not words:
            continue
        if heading := re.fullmatch(r"\^?\[[^\]]+\](?:\[\d+\])?\s*(.*)", words):
            section = tuple(heading[1].split())  # GitLab: a section's default owners
            continue
        pattern, *owners = re.split(r"(?<!\\)\s+", words)
        found.append(
            Rule(pattern.replace("\\ ", " ").replace("\\#", "#"), tuple(owners) or section, f"{place}:{number}")
        )
    return tuple(found)


def matches(pattern: str, path: str) -> bool:
    """Whether a CODEOWNERS pattern covers a repository path: gitignore's rules without `!` and character ranges.

    As on the forges, "docs/*" covers the files directly in docs and "docs/" all below.
    """
    return bool(_compiled(pattern).fullmatch(path.strip("/")))


def _compiled(pattern: str) -> re.Pattern[str]:
    body = pattern.strip("/")
    anchored = pattern.startswith("/") or "/" in body
    parts = ["" if anchored else "(?:.*/)?"]
    position = 0
    while position < len(body):
        if body.startswith("**/", position):
            parts.append("(?:.*/)?")
            position += 3
        elif body.startswith("**", position):
            parts.append(".*")
            position += 2
        else:
            letter = body[position]
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter)))
            position += 1
    # A name without a wildcard at the end covers the directory of that name, too.
    tail = "/.*" if pattern.endswith("/") else "" if body.endswith("/*") else "(?:/.*)?"
    return re.compile("".join(parts) + tail, re.DOTALL)


def owners_of(top: str | os.PathLike[str], path: str) -> Ownership:
    """Who answers for `path` (a file or a directory, "" for the whole repository)."""
    asked = path.strip("/")
    # A directory is owned by who owns a file in it that no narrower rule names.
    probe = f"{asked}/\ufffd" if (Path(top) / asked).is_dir() and asked else asked or "\ufffd"
    refused: tuple[str, ...] = ()
    for rule in reversed(rules(top)):
        if matches(rule.pattern, probe):
            persons = tuple(owner for owner in rule.owners if not is_bot(owner))
            refused = tuple(owner for owner in rule.owners if is_bot(owner))
            if persons:
                return Ownership(persons, rule.source, refused)
            break
    return _committers(top, asked, refused) or _configured(top, refused) or Ownership((), "nobody was found", refused)


def _committers(top: str | os.PathLike[str], path: str, refused: tuple[str, ...]) -> Ownership | None:
    args = ["log", f"--max-count={COMMITS_MAX}", "--format=%aN <%aE>", "HEAD"]
    code, out = git.status(
        [*args, "--", path] if path else args,
        git_dir=os.path.join(top, ".git"),
        work_tree=str(top),
        cwd=str(top),
        ok=frozenset({0, 128}),  # 128: no commit yet
    )
    names = [line for line in out.decode("utf-8", "replace").splitlines() if line and not code]
    people = Counter(name for name in names if not is_bot(name) and _EMAIL.search(name))
    if not people:
        return None
    name, count = min(people.items(), key=lambda pair: (-pair[1], pair[0]))
    bots = tuple(sorted({name for name in names if is_bot(name)}))
    return Ownership((name,), f"git log ({count} of the last {len(names)} commits)", refused + bots)


def _configured(top: str | os.PathLike[str], refused: tuple[str, ...]) -> Ownership | None:
    """The operator's own git identity: the repository's config, then the person's files."""
    home = os.path.expanduser("~")
    xdg = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    for file in (os.path.join(top, ".git", "config"), f"{home}/.gitconfig", f"{xdg}/git/config"):
        if not os.path.isfile(file):
            continue
        code, out = git.status(["config", "--file", file, "--get", "user.email"], ok=frozenset({0, 1}))
        email = out.decode("utf-8", "replace").strip()
        if not code and _EMAIL.fullmatch(email) and not is_bot(email):
            return Ownership((email,), f"user.email in {file}", refused)
    return None
