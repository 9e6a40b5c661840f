"""What would execute a written file later: every row of the table bites, ordinary files pass, and a person is told why.

Contents count for two manifests; trees come from a real store there. Knows nothing of a run.
"""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_anomalies_wired import Repository, bench, taken

from inbounds.contracts.verdict import Outcome
from inbounds.judges import manifests, scope
from inbounds.judges.executes_later import GIT_DATA, TABLE
from inbounds.judges.planted import folded, planted
from inbounds.judges.scope import Change, Declared

ROOT = Path(__file__).resolve().parents[2]
BROAD = Declared(("**",), files_max=1000)
WIDE = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(ord("a"), ord("z") + 1)})  # full-width letters


def expanded(pattern: str) -> list[str]:
    """Names that a pattern of the table stands for."""
    parts = [p[1:-1].split(",") if p.startswith("{") else [p] for p in re.split(r"(\{[^{}]*\})", pattern)]
    names = ["".join(chosen) for chosen in itertools.product(*parts)]
    return [name.lstrip("/").replace("*", "1") + ("x" if name.endswith("/") else "") for name in names]


NAMES = [(row, pattern, name) for row in TABLE for pattern in row.names for name in expanded(pattern)]


@pytest.mark.parametrize(("row", "pattern"), [(row, pattern) for row in TABLE for pattern in row.names])
def test_every_pattern_bites_and_says_its_reason(row: object, pattern: str) -> None:
    for name in expanded(pattern):
        found = planted(name)
        assert found is not None, name
        earlier = TABLE[: next(n for n, one in enumerate(TABLE) if one is row) + 1]  # an earlier row may know it, too
        assert found.reason in {one.reason for one in earlier}, name


def test_each_rows_reason_is_given_for_something() -> None:
    """No row is dead behind those before it."""
    given_reasons = {found.reason for _, _, name in NAMES if (found := planted(name))}
    assert given_reasons == {row.reason for row in TABLE}
    assert len({row.reason for row in TABLE}) == len(TABLE)


@given(
    one=st.sampled_from([name for _, pattern, name in NAMES if not pattern.startswith("/")]),
    above=st.lists(st.sampled_from(["src", "a b", "lib.d", "Ünder", "x"]), max_size=4),
    disguise=st.sampled_from(["plain", "upper", "wide", "invisible", "dots", "stream", "backslash"]),
)
def test_no_directory_and_no_disguise_hides_it(one: str, above: list[str], disguise: str) -> None:
    name = {
        "plain": one,
        "upper": one.upper(),
        "wide": one.translate(WIDE),
        "invisible": "\u200c".join(one) + "\U000e0101",
        "dots": "/".join(f"{part} ." for part in one.split("/")),
        "stream": f"{one}::$DATA",
        "backslash": one.replace("/", "\\"),
    }[disguise]
    assert planted("/".join([*above, name])) is not None


@given(st.lists(st.text("abcdefghijklmnop_", min_size=4, max_size=9), min_size=1, max_size=4))
def test_ordinary_sources_pass(parts: list[str]) -> None:
    """The positive control, under the same broad target."""
    path = "/".join(f"m{part}" for part in parts) + "_x.py"
    assert planted(path) is None
    assert scope.judge([Change("A", path, new_mode="100644")], BROAD).outcome is Outcome.PASS


@pytest.mark.parametrize(
    "path",
    [
        *["src/app/config.py", "docs/agents.rst", "src/systemd/client.py", "lib/hooks/process.py", "docs/service.md"],
        *["web/x.ts", "data/environment.json", "src/profile.py", "src/env.py", "config/app.yaml", "a/dockerfiles.md"],
    ],
)
def test_near_misses_pass(path: str) -> None:
    assert planted(path) is None, planted(path)


@pytest.mark.req("N4")
@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".husky/pre-commit", "git runs it as a hook at every commit, checkout, merge or push"),
        ("pkg/CLAUDE.md", "another coding agent obeys it as settings or instructions as soon as it is started here"),
        (".envrc", "direnv or a version switcher evaluates it when somebody enters the directory"),
        ("tests/conftest.py", "pytest, coverage or a test runner runs it or takes options from it before any test"),
        (".venv/bin/python", "whoever uses this environment runs what is in it as interpreter, tool or library at the"),
        ("deploy/x.timer", "the init system, cron or desktop starts it at boot, at login or by the clock"),
        (".vscode/tasks.json", "runs its tasks and settings as soon as the directory is opened"),
        ("x.pth", "Python runs it at the start of every interpreter"),
    ],
)
def test_the_reviewer_is_told_why_and_a_plan_that_names_the_path_is_believed(path: str, why: str) -> None:
    verdict = scope.judge([Change("A", path, new_mode="100644")], BROAD)
    [finding] = verdict.findings
    assert finding.rule == "scope.executes_later"
    assert why in finding.message
    assert finding.message.endswith("; declare the exact path if it is meant")
    assert why in verdict.summary, "the line that terminal and journal show"
    named = Declared(("**", path))
    assert scope.judge([Change("A", path, new_mode="100644")], named).outcome is Outcome.PASS


def test_no_plan_declares_gits_own_data() -> None:
    for path in (".git/hooks/pre-commit", "a/.GIT/config", "git~1/x", ".git::$INDEX_ALLOCATION/config"):
        verdict = scope.judge([Change("A", path)], Declared(("**", path)))
        assert "no plan can declare it" in verdict.findings[0].message
        assert GIT_DATA.reason in verdict.findings[0].message


PACKAGE = b'{"name": "a", "version": "1.0.0", "scripts": {"test": "x"}, "exports": {"import": "a", "default": "b"}}'
PROJECT = (
    b'[build-system]\nrequires = ["hatchling"]\n[project]\nname = "a"\nversion = "1"\n[tool.ruff]\nline-length = 9\n'
)


def changed(path: str, old: bytes | None, new: bytes | None, **more: str) -> list[str]:
    fields = {"old_mode": "100644", "new_mode": "100644", **more}
    change = Change(fields.pop("status", "M"), path, old=old, new=new, **fields)
    return [finding.message for finding in scope.judge([change], BROAD).findings]


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("package.json", PACKAGE, PACKAGE.replace(b"1.0.0", b"1.0.1")),
        ("sub/package.json", PACKAGE, PACKAGE.replace(b'"name"', b'"description": "d", "keywords": ["k"], "name"')),
        ("pyproject.toml", PROJECT, PROJECT.replace(b'"1"', b'"2"\ndescription = "d"')),
        ("pyproject.toml", PROJECT, b"# a comment\n" + PROJECT),
    ],
)
def test_what_describes_a_package_to_people_is_no_finding(path: str, old: bytes, new: bytes) -> None:
    assert changed(path, old, new) == []
    assert changed(path, None, None) != [], "without contents its name decides"


@pytest.mark.parametrize(
    ("path", "new", "part"),
    [
        ("package.json", PACKAGE.replace(b'"x"', b'"y"'), "scripts"),
        ("package.json", PACKAGE.replace(b'"name"', b'"dependencies": {"evil": "*"}, "name"'), "dependencies"),
        ("package.json", PACKAGE.replace(b'"name"', b'"jest": {"setupFiles": ["x"]}, "name"'), "jest"),
        (
            "package.json",
            PACKAGE.replace(b'"import": "a", "default": "b"', b'"default": "b", "import": "a"'),
            "exports",
        ),
        ("package.json", PACKAGE.replace(b'"name"', b'"a\\u001b[2Jb": 1, "name"'), "a\\x1b[2Jb"),
        ("pyproject.toml", PROJECT.replace(b"hatchling", b"evil"), "build-system"),
        ("pyproject.toml", PROJECT + b'[tool.pytest.ini_options]\naddopts = "-p evil"\n', "tool.pytest"),
        (
            "pyproject.toml",
            PROJECT.replace(b"[tool", b'[project.entry-points.pytest11]\nx = "y"\n[tool'),
            "project.entry-points",
        ),
        ("pyproject.toml", PROJECT.replace(b"= 9", b"= true"), "tool.ruff"),
    ],
)
def test_a_part_that_leads_to_execution_is_named(path: str, new: bytes, part: str) -> None:
    [message] = changed(path, PACKAGE if path == "package.json" else PROJECT, new)
    assert f"(changed: {part})" in message
    assert message.isprintable()


NICER = PACKAGE.replace(b"1.0.0", b"1.0.1")


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        (None, NICER, {"status": "A", "old_mode": ""}),
        (PACKAGE, NICER, {"new_mode": "100755"}),
        (PACKAGE, NICER, {"new_mode": "120000", "link": "x"}),
        (PACKAGE, NICER, {"status": "R", "old_path": "a.json"}),
        (PACKAGE, NICER[:-1], {}),
        (PACKAGE, b"[]", {}),
        (PACKAGE, b"\xff" + NICER, {}),
        (PACKAGE, NICER.replace(b'"name"', b'"scripts": {"test": "evil"}, "name"'), {}),
        (PACKAGE, b'{"version": ' + b"[" * 100_000, {}),
        (PACKAGE, b'{"version": ' + b"9" * 100_000 + b"}", {}),
        (PACKAGE, NICER + b" " * manifests.BYTES_MAX, {}),
    ],
    ids=["new", "executable", "link", "renamed", "damaged", "list", "bytes", "doubled", "deep", "number", "large"],
)
def test_contents_that_cannot_speak_leave_it_to_the_name(old: bytes | None, new: bytes, more: dict[str, str]) -> None:
    messages = changed("package.json", old, new, **more)
    assert any(message.startswith("a JavaScript package manager runs its scripts") for message in messages), messages


def test_only_the_very_name_is_read() -> None:
    """PACKAGE.JSON is the manifest on some file systems, and beside another one on ours: nobody knows whose it is."""
    assert changed("Package.json", PACKAGE, NICER) != []
    assert folded("Package.json") == "package.json"


def test_the_page_is_what_the_table_says(tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "executes_later.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = (ROOT / "docs" / "executes-later.md").read_text(encoding="utf-8")
    assert all(f"`{pattern}`" in page for row in TABLE for pattern in row.names)
    assert max(map(len, page.splitlines())) <= 125


def test_the_contents_are_those_of_the_store(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"package.json": PACKAGE, "billing/package.json": PACKAGE})
    made = bench(repository, thread=".", protected=(), acceptance=())
    harmless = repository.then({"billing/package.json": NICER})
    assert made._scope(taken(repository, harmless)).findings == ()
    scripts = repository.then({"billing/package.json": PACKAGE.replace(b'"x"', b'"curl x | sh"')})
    [finding] = made._scope(taken(repository, scripts)).findings
    assert (finding.rule, finding.path) == ("scope.executes_later", "billing/package.json")
    assert "(changed: scripts)" in finding.message
    large = repository.then({"billing/package.json": NICER + b" " * manifests.BYTES_MAX})
    assert [f.rule for f in made._scope(taken(repository, large)).findings] == ["scope.executes_later"]
