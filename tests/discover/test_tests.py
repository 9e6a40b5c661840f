"""How tests are run, from the files that say so, each with its line."""

from pathlib import Path

import pytest
from made_repository import write

from inbounds.contracts.errors import OperatorError
from inbounds.discover import tests as found


def only(top: Path, thread: str = "") -> found.TestCommand:
    seen = found.find(top, thread)
    assert len(seen) == 1, seen
    return seen[0]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("pyproject.toml", '[project]\nname = "x"\n[tool.pytest.ini_options]\ntestpaths = ["checks"]\n', 3),
        ("pyproject.toml", '[tool.pytest]\ntestpaths = ["checks"]\n', 1),
        ("pytest.ini", "[pytest]\ntestpaths = checks\n", 1),
        ("tox.ini", "[tox]\nenvlist = py\n[pytest]\ntestpaths = checks\n", 3),
        ("setup.cfg", "[metadata]\nname = %(x)s\n[tool:pytest]\ntestpaths = checks\n", 3),
    ],
)
def test_pytest_settings_are_read_where_pytest_reads_them(tmp_path: Path, name: str, text: str, line: int) -> None:
    write(tmp_path, {name: text, "checks/test_a.py": ""})
    seen = only(tmp_path)
    assert (seen.runner, seen.paths, seen.source) == ("pytest", ("checks",), f"{name}:{line}")


def test_without_settings_the_test_files_tell(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pkg/tests/unit/test_a.py": "",
            "pkg/tests/test_b.py": "",
            ".venv/lib/test_c.py": "",
            "node_modules/test_d.py": "",
        },
    )
    seen = only(tmp_path)
    assert seen.paths == ("pkg/tests",)
    assert seen.source == "pkg/tests/test_b.py:1"


def test_a_source_layout_gives_the_python_path(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": '[project]\nname = "x"\n', "src/x/__init__.py": "", "tests/test_x.py": ""})
    assert only(tmp_path).pythonpath == ("src",)


def test_a_thread_has_its_own_tests(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\ntestpaths = ["billing/tests", "shipping/tests"]\n',
            "billing/tests/test_a.py": "",
            "shipping/tests/test_b.py": "",
        },
    )
    seen = only(tmp_path, "billing")
    assert (seen.paths, seen.pythonpath) == (("billing/tests",), (".",))
    assert only(tmp_path).paths == ("billing/tests", "shipping/tests")


@pytest.mark.parametrize(
    ("script", "runner"),
    [("node --test", "junit"), ("vitest run", "junit"), ("jest --ci", ""), ("node build.js && mocha", "")],
)
def test_npm_test_by_its_runner(tmp_path: Path, script: str, runner: str) -> None:
    write(tmp_path, {"package.json": f'{{\n  "scripts": {{\n    "test": "{script}"\n  }}\n}}\n'})
    seen = only(tmp_path)
    assert (seen.runner, seen.language, seen.source) == (runner, "JavaScript", "package.json:3")
    assert script in seen.why


def test_npm_without_a_test_is_no_test(tmp_path: Path) -> None:
    write(tmp_path, {"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'})
    assert found.find(tmp_path) == ()


@pytest.mark.parametrize(("name", "language"), [("go.mod", "Go"), ("Cargo.toml", "Rust")])
def test_what_is_not_supported_is_named(tmp_path: Path, name: str, language: str) -> None:
    write(tmp_path, {name: ""})
    seen = only(tmp_path)
    assert (seen.runner, seen.language) == ("", language)
    assert "not supported yet" in seen.why


@pytest.mark.parametrize(
    ("name", "text"), [("pyproject.toml", "[tool"), ("pytest.ini", "testpaths = x"), ("package.json", "{")]
)
def test_a_broken_manifest_is_named(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, {name: text, "test_a.py": ""})
    with pytest.raises(OperatorError) as fault:
        found.find(tmp_path)
    assert fault.value.where == name


def test_the_commands_for_node_write_a_report(tmp_path: Path) -> None:
    import os
    import shutil
    import subprocess

    if not shutil.which("node"):
        pytest.skip("node is not installed")
    write(
        tmp_path,
        {
            "a.test.js": "require('node:test')('adds', () => {})\n",
            "package.json": '{"scripts": {"test": "node --test"}}',
        },
    )
    report = tmp_path / "report.xml"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "INBOUNDS_JUNIT": str(report)}
    reporter = Path(found.__file__).parents[1] / "judges" / "node_reporter.mjs"
    env |= {"INBOUNDS_NODE_REPORTER": str(reporter), "INBOUNDS_ROOT": str(tmp_path)}
    done = subprocess.run(only(tmp_path).command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    if "bad option" in done.stderr:
        pytest.skip("this node has no JUnit reporter")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '<testcase file="a.test.js" name="adds"' in report.read_text()
