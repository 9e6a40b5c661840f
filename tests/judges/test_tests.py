import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts.job import JobResult
from inbounds.contracts.verdict import Outcome, Severity, Verdict
from inbounds.judges import junit, preflight, report, tests

Read = Callable[[tests.Suite, Path], report.Reading]
Tree = Callable[[dict[str, str | None]], Path]

BASE: dict[str, str | None] = {
    "src/calc.py": "def add(a, b):\n    return a - b\n\ndef one():\n    return 1\n",
    "tests/test_old.py": "import pytest\nfrom calc import one\n\n"
    "@pytest.mark.parametrize('n', [1, 'a\\x1bb/::[c'])\ndef test_one(n):\n    assert one() == 1\n\n"
    "class TestIn:\n    def test_method(self):\n        assert one() == 1\n",
    "tests/test_accept.py": "from calc import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
}
SUITE = tests.Suite(
    acceptance=("tests/test_accept.py::test_add",), paths=("tests",), python=sys.executable, pythonpath=("src",)
)
FIXED = "def add(a, b):\n    return a + b\n\ndef one():\n    return 1\n"


@pytest.fixture
def baseline(tree: Tree, read_tests: Read) -> tests.Baseline:
    reading = read_tests(SUITE, tree(BASE))
    assert reading.report is not None
    assert not reading.findings
    return tests.Baseline(reading.report.outcomes)


def rules(verdict: Verdict) -> set[str]:
    return {finding.rule for finding in verdict.findings}


def test_an_honest_fix_turns_the_acceptance_test_green(tree: Tree, read_tests: Read, baseline: tests.Baseline) -> None:
    before = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert before.outcome is Outcome.FAIL
    assert before.facts["failing"] == ["tests/test_accept.py::test_add"]
    after = tests.judge(SUITE, read_tests(SUITE, tree({"src/calc.py": FIXED})), baseline)
    assert after.outcome is Outcome.PASS, after
    assert after.facts["newly_passing"] == ["tests/test_accept.py::test_add"]
    assert after.facts["passing"] == 4
    assert after.facts["canaries"] == 2
    assert after.facts["version"] == f"pytest {pytest.__version__} on Python {platform.python_version()}"
    json.dumps(after.as_json())


@pytest.mark.req("H8")
def test_the_first_word_on_the_runners_version_counts_and_none_is_none() -> None:
    def said(*lines: dict[str, Any]) -> str:
        raw = b"".join(json.dumps(line).encode() + b"\n" for line in (*lines, {"end": 0}))
        result = JobResult("exited", 0, 0, b"", b"", {"x.xml": b"<testsuite/>", "w": raw}, 1)
        return report.read_witnessed(result, "x.xml", "w", ()).version

    assert said({"start": "8.1", "python": "3.11.2"}, {"start": "9.9", "python": "4"}) == "pytest 8.1 on Python 3.11.2"
    assert said() == said({"start": 8}) == ""
    assert len(said({"start": "8" * 1_000})) == report.VERSION_CHARS_MAX
    plain = tests.Suite(("t::a",), runner="junit", command=("x",))
    reading = report.Reading(report.TestReport({"t::a": "passed"}))
    assert "version" not in tests.judge(plain, reading, tests.Baseline()).facts


@pytest.mark.req("M1")
def test_preflight_accepts_a_red_acceptance_test_and_refuses_a_red_suite(tree: Tree, read_tests: Read) -> None:
    good = preflight.judge(SUITE, read_tests(SUITE, tree(BASE)), frozenset())
    assert good.outcome is Outcome.PASS
    assert good.facts["acceptance_failing"] == ["tests/test_accept.py::test_add"]
    tree({"tests/test_red.py": "def test_red():\n    assert False\n"})
    red = preflight.judge(SUITE, read_tests(SUITE, tree({})), frozenset())
    assert rules(red) == {"preflight.baseline_red"}
    pinned = preflight.judge(SUITE, read_tests(SUITE, tree({})), frozenset({"tests/test_red.py::test_red"}))
    assert pinned.outcome is Outcome.PASS
    assert pinned.facts["failing"] == ["tests/test_accept.py::test_add"]
    assert pinned.facts["known_failing"] == ["tests/test_red.py::test_red"]


@pytest.mark.req("M5")
def test_preflight_refuses_where_success_could_not_show(tree: Tree, read_tests: Read) -> None:
    reading = read_tests(SUITE, tree(BASE))
    none = preflight.judge(replace(SUITE, acceptance=()), reading, frozenset())
    assert rules(none) == {"preflight.no_criteria"}
    absent = preflight.judge(replace(SUITE, acceptance=("tests/test_accept.py::test_gone",)), reading, frozenset())
    assert "preflight.acceptance_missing" in rules(absent)
    done = preflight.judge(replace(SUITE, acceptance=("tests/test_old.py::test_one",)), reading, frozenset())
    assert "preflight.nothing_to_do" in rules(done)


def test_acceptance_file_that_cannot_be_imported_yet_is_failing_not_missing(tree: Tree, read_tests: Read) -> None:
    tree({**BASE, "tests/test_accept.py": "from calc import later\n\ndef test_add():\n    assert later()\n"})
    reading = read_tests(SUITE, tree({}))
    verdict = preflight.judge(SUITE, reading, frozenset())
    assert verdict.outcome is Outcome.PASS, verdict
    assert verdict.facts["failing"] == ["tests/test_accept.py::test_add"]
    assert reading.report is not None
    after = tests.judge(
        SUITE,
        read_tests(SUITE, tree({"src/calc.py": FIXED + "def later():\n    return 1\n"})),
        tests.Baseline(reading.report.outcomes),
    )
    assert after.outcome is Outcome.PASS, after


FORGERS = {
    "every outcome green, from a conftest": (
        "tests/conftest.py",
        (
            "import pytest\n@pytest.hookimpl(hookwrapper=True, tryfirst=True)\ndef pytest_runtest_makereport(item, call):\n"
            "    out = yield\n    rep = out.get_result()\n    rep.outcome = 'passed'\n    rep.longrepr = None\n"
        ),
    ),
    "every report green, from production code": (
        "src/calc.py",
        (
            "import _pytest.runner as r\n_old = r.TestReport.from_item_and_call.__func__\n"
            "def _new(cls, item, call):\n    call.excinfo = None\n    return _old(cls, item, call)\n"
            "r.TestReport.from_item_and_call = classmethod(_new)\n"
            "def add(a, b):\n    return 0\ndef one():\n    return 1\n"
        ),
    ),
    "a clean JUnit file at exit": (
        "src/calc.py",
        (
            "import atexit, glob, os, re, sys\n"
            "def forge():\n"
            "    import gc\n"
            "    from _pytest.junitxml import LogXML\n"
            "    for o in gc.get_objects():\n"
            "        if isinstance(o, LogXML):\n"
            "            t = open(o.logfile).read()\n"
            "            t = re.sub(r'<failure.*?</failure>', '', t, flags=re.S)\n"
            "            open(o.logfile, 'w').write(t)\n"
            "    os._exit(0)\n"
            "atexit.register(forge)\n"
            "def add(a, b):\n    return 0\ndef one():\n    return 1\n"
        ),
    ),
    "exit code 0 only": (
        "src/calc.py",
        "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b):\n    return 0\ndef one():\n    return 1\n",
    ),
    "test calls replaced": (
        "tests/conftest.py",
        "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
    ),
    "canaries dropped": (
        "tests/conftest.py",
        (
            "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtestloop(session):\n"
            "    session.items[:] = [i for i in session.items if getattr(i, 'obj', None).__name__ != '_canary']\n"
            "@pytest.hookimpl(wrapper=True)\ndef pytest_pyfunc_call(pyfuncitem):\n"
            "    try:\n        yield\n    except BaseException:\n        pass\n    return True\n"
        ),
    ),
}


@pytest.mark.req("O6")
@pytest.mark.without("test-canaries")
@pytest.mark.parametrize("name", FORGERS)
def test_a_forger_never_gets_a_pass(
    name: str, tree: Tree, read_tests: Read, baseline: tests.Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "test-canaries":
        monkeypatch.setattr(report, "_canaries", lambda *_: [])
        monkeypatch.setattr(report, "_exit", lambda *_: [])
        monkeypatch.setattr(report, "_disagreements", lambda *_: [])
    path, text = FORGERS[name]
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({path: text})), baseline)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict
    assert verdict.findings[0].severity is Severity.HIGH
    assert verdict.facts["guarantee"] == "none"


@pytest.mark.parametrize(
    "text",
    [
        "import sys\nsys.exit(0)\n",
        "import os\nos._exit(0)\n",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    ],
)
def test_leaving_early_with_success_is_no_answer(
    text: str, tree: Tree, read_tests: Read, baseline: tests.Baseline
) -> None:
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({"src/calc.py": text})), baseline)
    assert verdict.outcome is not Outcome.PASS
    assert verdict.facts["acceptance_failing"] == ["tests/test_accept.py::test_add"]
    assert verdict.facts["failing_count"] >= 4


@pytest.mark.req("O6")
def test_deleted_deselected_and_skipped_tests_are_weakening(
    tree: Tree, read_tests: Read, baseline: tests.Baseline
) -> None:
    tree({"src/calc.py": FIXED, "tests/test_old.py": "def test_new():\n    pass\n"})
    gone = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert gone.outcome is Outcome.FAIL
    assert rules(gone) == {"tests.missing"}
    assert len(gone.facts["missing"]) == 3
    tree({"tests/test_old.py": BASE["tests/test_old.py"], "pytest.ini": "[pytest]\naddopts = -k test_add\n"})
    deselected = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert "tests.missing" in rules(deselected)
    tree({"pytest.ini": None, "tests/conftest.py": "import pytest\n\ndef pytest_collection_modifyitems(items):\n"})
    hook = "import pytest\n\ndef pytest_collection_modifyitems(items):\n    for i in items:\n        i.add_marker(pytest.mark.{})\n"
    tree({"tests/conftest.py": hook.format("skip")})
    skipped = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert {"tests.acceptance_skipped", "tests.skipped"} <= rules(skipped)
    tree({"tests/conftest.py": hook.format("xfail"), "src/calc.py": BASE["src/calc.py"]})
    expected = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert expected.outcome is not Outcome.PASS
    assert "tests.acceptance_skipped" in rules(expected)
    assert expected.facts["acceptance_failing"]


def test_parameters_that_change_with_each_run_are_not_missing(tree: Tree, read_tests: Read) -> None:
    volatile = (
        "import os, pytest\n\n@pytest.mark.parametrize('n', [os.urandom(4).hex(), {}])\ndef test_v(n):\n    pass\n"
    )
    tree({**BASE, "src/calc.py": FIXED, "tests/test_v.py": volatile.format("'a'")})
    reading = read_tests(SUITE, tree({}))
    assert reading.report is not None
    base = tests.Baseline(reading.report.outcomes)
    assert tests.judge(SUITE, read_tests(SUITE, tree({})), base).outcome is Outcome.PASS
    fewer = tree({"tests/test_v.py": volatile.replace(", {}", "")})
    assert rules(tests.judge(SUITE, read_tests(SUITE, fewer), base)) == {"tests.missing"}


def test_an_interrupted_run_is_no_answer(tree: Tree, read_tests: Read, baseline: tests.Baseline) -> None:
    tree({"src/calc.py": FIXED + "import pytest\ndef one():\n    pytest.exit('enough', 0)\n"})
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict


@pytest.mark.req("C6")
def test_nothing_of_the_repository_stands_in_for_pytest(tree: Tree, read_tests: Read, baseline: tests.Baseline) -> None:
    fake = "import sys\nprint('1 passed')\nsys.exit(0)\n"
    tree({"pytest.py": fake, "src/pytest.py": fake, "src/sitecustomize.py": fake, "src/_pytest/__init__.py": fake})
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({"src/calc.py": FIXED})), baseline)
    assert verdict.outcome is Outcome.PASS, verdict


def test_options_of_the_project_do_not_hide_failures(tree: Tree, read_tests: Read, baseline: tests.Baseline) -> None:
    tree({"pytest.ini": "[pytest]\naddopts = -x --junitxml=elsewhere.xml -p no:junitxml\n"})
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert verdict.outcome is not Outcome.PASS
    tree(
        {
            "pytest.ini": "[pytest]\naddopts = -x\njunit_family = xunit2\n",
            "tests/test_a.py": "def test_a():\n    assert 0\n",
        }
    )
    verdict = tests.judge(SUITE, read_tests(SUITE, tree({})), baseline)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.facts["failing"] == ["tests/test_a.py::test_a", "tests/test_accept.py::test_add"]


def test_a_thread_below_the_root_has_repository_relative_ids(tree: Tree, read_tests: Read) -> None:
    root = tree({f"billing/{name}": text for name, text in BASE.items()})
    tree({"billing/pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['src']\n"})
    suite = replace(
        SUITE,
        acceptance=("billing/tests/test_accept.py::test_add",),
        paths=("billing/tests",),
        thread="billing",
        pythonpath=(),
    )
    reading = read_tests(suite, root)
    assert not reading.findings
    assert reading.report is not None
    assert reading.report.outcomes["billing/tests/test_accept.py::test_add"] == "failed"


def test_teardown_errors_classes_and_unittest_agree_between_both_reports(tree: Tree, read_tests: Read) -> None:
    root = tree(
        {
            "tests/base.py": "class Base:\n    def test_inherited(self):\n        assert True\n",
            "tests/test_mix.py": "import unittest, pytest\nfrom base import Base\n\n"
            "class TestChild(Base):\n    class TestDeep:\n        def test_in(self):\n            pass\n\n"
            "class Case(unittest.TestCase):\n    def test_u(self):\n        self.assertTrue(True)\n"
            "    def test_sub(self):\n        with self.subTest(i=1):\n            self.assertTrue(False)\n\n"
            "@pytest.fixture\ndef broken():\n    yield\n    raise RuntimeError\n\n"
            "def test_teardown(broken):\n    assert False\n\ndef test_teardown_only(broken):\n    pass\n\n"
            "@pytest.mark.xfail(strict=True)\ndef test_strict():\n    pass\n\n"
            "@pytest.mark.xfail\ndef test_loose():\n    pass\n\n@pytest.mark.skip\ndef test_skip():\n    pass\n",
        }
    )
    reading = read_tests(replace(SUITE, acceptance=("tests/test_mix.py",), pythonpath=("tests",)), root)
    assert not reading.findings, reading.findings
    assert reading.report is not None
    outcomes = {name.partition("::")[2]: outcome for name, outcome in reading.report.outcomes.items()}
    assert outcomes == {
        "TestChild::test_inherited": "passed",
        "TestChild::TestDeep::test_in": "passed",
        "Case::test_u": "passed",
        "Case::test_sub": "failed",
        "test_teardown": "error",
        "test_teardown_only": "error",
        "test_strict": "failed",
        "test_loose": "passed",
        "test_skip": "skipped",
    }
    assert reading.report.marked == {"tests/test_mix.py::test_loose"}


def test_a_deadline_and_a_missing_pytest_are_no_answer(tree: Tree, read_tests: Read) -> None:
    root = tree({"tests/test_slow.py": "import time\n\ndef test_slow():\n    time.sleep(60)\n"})
    suite = replace(SUITE, acceptance=("tests/test_slow.py::test_slow",), deadline_ms=3000)
    verdict = tests.judge(suite, read_tests(suite, root), tests.Baseline())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "deadline" in verdict.summary
    bare = getattr(sys, "_base_executable", sys.executable)
    nonce = "ab" * 16
    result = JobResult("exited", 1, 0, b"", b"ModuleNotFoundError: No module named '_pytest'\n", {}, 1)
    reading = tests.read(replace(suite, python=bare), nonce, result)
    assert "not installed" in reading.problem


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_runner_that_only_writes_junit(tree: Tree, read_tests: Read) -> None:
    root = tree(
        {
            "sum.test.js": "const {test} = require('node:test'); const a = require('node:assert');\n"
            "test('adds', () => a.equal(1 + 1, 2)); test('fails', () => a.equal(1, 2));\n"
        }
    )
    command = ("node", "--test", "--test-reporter=junit", "--test-reporter-destination=$INBOUNDS_JUNIT", "sum.test.js")
    suite = tests.Suite(acceptance=("test::fails",), runner="junit", command=command)
    reading = read_tests(suite, root)
    if reading.report is None and "no JUnit file" in reading.problem:
        pytest.skip("this node has no junit reporter")
    verdict = tests.judge(suite, reading, tests.Baseline())
    assert verdict.outcome is Outcome.FAIL
    assert verdict.facts["acceptance_failing"] == ["test::fails"]
    assert "weaker" in verdict.facts["guarantee"]


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><testsuite>&b;</testsuite>'
EXTERNAL = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuite>&a;</testsuite>'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"<a/>",
        b"<testsuite>",
        BOMB,
        EXTERNAL,
        b'<?xml version="1.0" encoding="nonsense"?><testsuite/>',
        b"<testsuite>" * 5000,
        b"<testsuite>" + b"<testcase name='a'/>" * (junit.CASES_MAX + 1) + b"</testsuite>",
        b"<testsuite>" + b" " * junit.BYTES_MAX + b"</testsuite>",
    ],
    ids=["empty", "nul", "root", "cut", "bomb", "external", "encoding", "deep", "many", "huge"],
)
def test_hostile_xml_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(junit.BadReportError):
        junit.parse(data)
    reading = report.read_plain(JobResult("exited", 0, 0, b"", b"", {"x.xml": data}, 1), "x.xml")
    assert reading.report is None
    assert reading.findings[0].rule == "tests.no_report"


@pytest.mark.parametrize("line", [b"[]", b"{", b'{"id": "a", "outcome": "great"}', b"[" * 100_000, b"\xff"])
def test_hostile_witness_lines_are_no_answer(line: bytes) -> None:
    outputs = {"x.xml": b"<testsuite/>", "w": line + b"\n"}
    reading = report.read_witnessed(JobResult("exited", 0, 0, b"", b"", outputs, 1), "x.xml", "w", ())
    assert reading.report is None
