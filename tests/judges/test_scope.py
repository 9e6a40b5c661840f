import os

import pytest

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.verdict import Outcome, Severity, Verdict
from inbounds.judges import globs, scope
from inbounds.judges.planted import planted
from inbounds.judges.scope import Change, Declared, Foreign

PLAN = Declared(
    targets=("billing/src/**", "billing/tests/test_new.py", "shared/api/*.json", "billing/Makefile", "billing/run.sh"),
    thread="billing",
    acceptance=("billing/tests/test_accept.py",),
    interfaces=("shared/api/*.json",),
    protected=("billing/src/vendored/**",),
    files_max=5,
)


def one(change: Change, **more: object) -> tuple[Verdict, list[str]]:
    verdict = scope.judge([change], PLAN, **more)  # type: ignore[arg-type]  # fields by name
    return verdict, [finding.rule for finding in verdict.findings]


@pytest.mark.req("J12")
@pytest.mark.parametrize(
    ("change", "rule", "severity"),
    [
        (Change("M", "billing/other.py"), "scope.undeclared", Severity.HIGH),
        (Change("D", "billing/other.py"), "scope.undeclared", Severity.HIGH),
        (Change("R", "billing/src/a.py", "billing/other.py"), "scope.undeclared", Severity.HIGH),
        (Change("A", "shipping/src/a.py"), "scope.outside_thread", Severity.CRITICAL),
        (Change("A", "billing2/src/a.py"), "scope.outside_thread", Severity.CRITICAL),
        (Change("A", "shared/api/x.yaml"), "scope.outside_thread", Severity.CRITICAL),
        (Change("A", "billing/../shipping/src/a.py"), "scope.outside_thread", Severity.CRITICAL),
        (Change("A", "billing/src/./a.py"), "scope.outside_thread", Severity.CRITICAL),
        (Change("A", "billing//src/a.py"), "scope.outside_thread", Severity.CRITICAL),
        (Change("M", "billing/.inbounds/config.yaml"), "scope.protected", Severity.CRITICAL),
        (Change("A", "billing/src/.Inbounds/x"), "scope.protected", Severity.CRITICAL),
        (Change("M", "billing/src/vendored/x.py"), "scope.protected", Severity.CRITICAL),
        (Change("M", "billing/tests/test_accept.py"), "scope.acceptance_test", Severity.CRITICAL),
        (Change("R", "billing/src/t.py", "billing/tests/test_accept.py"), "scope.acceptance_test", Severity.CRITICAL),
        (Change("A", "billing/src/conftest.py"), "scope.executes_later", Severity.HIGH),
        (Change("A", "billing/src/.git/hooks/pre-commit"), "scope.executes_later", Severity.HIGH),
        (Change("A", "billing/src/l", new_mode="120000", link="../../../etc/passwd"), "scope.symlink", Severity.HIGH),
        (Change("A", "billing/src/l", new_mode="120000", link="/etc/passwd"), "scope.symlink", Severity.HIGH),
        (Change("A", "billing/src/l", new_mode="120000", link="../../.git/config"), "scope.symlink", Severity.HIGH),
        (Change("A", "billing/src/l", new_mode="120000"), "scope.symlink", Severity.HIGH),
        (Change("A", "billing/src/sub", new_mode="160000"), "scope.foreign", Severity.HIGH),
        (Change("M", "billing/src/a", new_mode="104755"), "scope.mode", Severity.HIGH),
    ],
)
def test_each_way_out_of_the_declaration_has_its_rule(change: Change, rule: str, severity: Severity) -> None:
    verdict, rules = one(change)
    assert verdict.outcome is Outcome.FAIL
    assert rule in rules
    assert {f.severity for f in verdict.findings if f.rule == rule} == {severity}


@pytest.mark.parametrize(
    "change",
    [
        Change("A", "billing/src/a.py", new_mode="100644"),
        Change("M", "billing/src/deep/er/a.py", old_mode="100644", new_mode="100755"),
        Change("D", "billing/src/conftest.py"),
        Change("M", "billing/Makefile"),
        Change("A", "shared/api/v1.json"),
        Change("A", "billing/src/l", new_mode="120000", link="../other.py"),
    ],
)
def test_what_is_declared_passes(change: Change) -> None:
    verdict, _ = one(change)
    assert verdict.outcome is Outcome.PASS, verdict


@pytest.mark.req("E3")
def test_files_are_counted_over_the_run() -> None:
    changes = [Change("M", f"billing/src/{n}.py") for n in range(3)]
    verdict = scope.judge(changes, Declared(PLAN.targets, "billing", files_max=5, files_before=3))
    assert [f.rule for f in verdict.findings] == ["scope.files"]
    assert verdict.facts["files_total"] == 6
    assert scope.judge(changes, PLAN).outcome is Outcome.PASS


def test_what_was_not_seen_never_passes() -> None:
    verdict, _ = one(Change("M", "billing/src/a.py"), complete=False, why="an entry could not be read:\x1b[2J")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "\x1b" not in verdict.summary
    verdict, rules = one(Change("M", "billing/src/a.py"), foreign=[Foreign("billing/src/s", "a socket")])
    assert verdict.outcome is Outcome.FAIL
    assert rules == ["scope.foreign"]


def test_names_of_an_agent_reach_no_terminal_raw() -> None:
    verdict, _ = one(Change("A", "billing/x\x1b]0;title\x07\n\udcff"))
    assert verdict.findings[0].path.isascii()
    assert verdict.findings[0].path.isprintable()


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("src/**", ["src/a", "src/a/b"], ["srca", "a/src/b"]),
        ("src/", ["src/a", "src/a/b"], ["src"]),
        ("**/a.py", ["a.py", "x/a.py", "x/y/a.py"], ["x/ba.py", "a.py/b"]),
        ("src/*.py", ["src/a.py", "src/.a.py"], ["src/x/a.py", "src/a.pyc"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/bb", "b"]),
        ("a?[0-9]", ["ab1"], ["a/1", "ab", "abx"]),
        ("a.py", ["a.py"], ["x/a.py", "aXpy", "A.py"]),
    ],
)
def test_patterns_cover_what_the_documentation_says(pattern: str, yes: list[str], no: list[str]) -> None:
    parsed = globs.parse(pattern)
    assert [p for p in [*yes, *no] if parsed.covers(p)] == yes


@pytest.mark.parametrize("bad", ["", "/a", "!a", "a/../b", "./", "a//b", "a**", "a\\b", "a\nb", "x/" * 100, "a" * 2000])
def test_patterns_that_surprise_are_refused(bad: str) -> None:
    with pytest.raises(OperatorError):
        globs.parse(bad)


@pytest.mark.timeout(20)
def test_no_pattern_takes_long() -> None:
    assert not globs.parse("/".join(["**", "*a*a*a*a*a*"] * 30)).covers("/".join(["a" * 200] * 200) + "/b")


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "a/.git/hooks/pre-commit",
        ".GIT/x",
        ".git\u200c/config",
        "git~1/config",
        ".gitattributes",
        "x/.gitmodules",
        ".husky/pre-push",
        "hooks/post-checkout",
        "a/conftest.py",
        "x.pth",
        "sitecustomize.py",
        "lib/usercustomize.py",
        ".claude/settings.json",
        "CLAUDE.md",
        ".mcp.json",
        ".vscode/tasks.json",
        ".devcontainer/devcontainer.json",
        ".idea/x.xml",
        ".envrc",
        ".bashrc",
        ".profile",
        "package.json",
        ".npmrc",
        "Makefile",
        "sub/GNUmakefile",
        "justfile",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "tox.ini",
        ".github/workflows/ci.yml",
        ".gitlab-ci.yml",
        "Jenkinsfile",
        ".venv/bin/python",
        "env/bin/activate",
        "node_modules/x/index.js",
        "__pycache__/a.cpython-311.pyc",
        "Dockerfile",
        "build.rs",
        "CMakeLists.txt",
        ".pre-commit-config.yaml",
        "vite.config.ts",
        "gulpfile.js",
        ".exrc",
        ".vimrc",
        "flake.nix",
        "requirements-dev.txt",
        "Cargo.toml",
        "go.mod",
        "noxfile.py",
        "x/HEAD",
        ".cargo/config.toml",
        "a.service",
        ".ipython/profile_default/startup/x.py",
    ],
)
def test_what_would_be_executed_later_is_known_by_name(path: str) -> None:
    assert planted(path) is not None


@pytest.mark.parametrize(
    "path",
    ["src/a.py", "src/hooks/useX.ts", "app/tasks.py", "README.md", "docs/head.md", "next.js", "a/b/c.json", "x.sql"],
)
def test_ordinary_files_are_no_plants(path: str) -> None:
    assert planted(path) is None


@pytest.mark.without("scope-executes-later")
def test_a_broad_target_does_not_declare_a_plant(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "scope-executes-later":
        monkeypatch.setattr(scope, "planted", lambda _: None)
    broad = Declared(("**",))
    assert scope.judge([Change("A", "pkg/conftest.py")], broad).outcome is Outcome.FAIL
    named = Declared(("**", "pkg/conftest.py", ".git/config"))
    assert scope.judge([Change("A", "pkg/conftest.py")], named).outcome is Outcome.PASS
    assert scope.judge([Change("A", ".git/config")], named).outcome is Outcome.FAIL
