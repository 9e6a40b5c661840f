"""Marks are kept honest: a proof must fail when the mechanism that it names is taken away.

Each session takes a few marked tests at random (INBOUNDS_HONESTY_SEED repeats a choice, INBOUNDS_HONESTY_COUNT=all
takes every one) and runs each in a pytest of its own with INBOUNDS_TEST_WITHOUT set.
"""

import json
import os
import random
import secrets
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNT = os.environ.get("INBOUNDS_HONESTY_COUNT", "5")


def _pytest(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "INBOUNDS_TEST_WITHOUT"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *argv],
        cwd=ROOT,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def _outcome(report: Path) -> str:
    """failed, error, skipped or passed: what the one test of a JUnit report did."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert len(cases) == 1, f"expected one test, found {[case.get('name') for case in cases]}"
    found = {child.tag for child in cases[0]}
    return next(
        (name for tag, name in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")) if tag in found),
        "passed",
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_marked_test_fails_without_its_mechanism(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.environ.get("INBOUNDS_TEST_WITHOUT"):
        pytest.skip("a mechanism is switched off already")
    listing = tmp_path / "marked.json"
    listed = _pytest(["--list-without", str(listing)])
    assert listing.exists(), listed.stdout + listed.stderr
    pairs = sorted((name, one) for name, all_ in json.loads(listing.read_text()).items() for one in all_)
    if not pairs:
        pytest.skip("no test is marked with a mechanism")
    seed = os.environ.get("INBOUNDS_HONESTY_SEED") or secrets.token_hex(4)
    random.Random(seed).shuffle(pairs)
    if COUNT != "all":
        # Of one function's many cases only one, and mechanisms not seen yet before others (the sort is stable).
        pairs = list({(name.partition("[")[0], mechanism): (name, mechanism) for name, mechanism in pairs}.values())
        first = {mechanism: pair for pair in reversed(pairs) for mechanism in (pair[1],)}
        pairs.sort(key=lambda pair: first[pair[1]] != pair)
    wanted = len(pairs) if COUNT == "all" else int(COUNT)
    seen: dict[str, str] = {}
    for name, mechanism in pairs:
        if sum(outcome != "skipped" for outcome in seen.values()) >= wanted:
            break
        report = tmp_path / f"{len(seen)}.xml"
        done = _pytest([name, f"--junit-xml={report}"], INBOUNDS_TEST_WITHOUT=mechanism)
        assert report.exists(), f"{name} without {mechanism}: {done.stdout}{done.stderr}"
        seen[f"{name} without {mechanism}"] = _outcome(report)
    lines = [f"{outcome:8} {what}" for what, outcome in seen.items()]
    with capsys.disabled():
        print(f"\nINBOUNDS_HONESTY_SEED={seed} ({len(pairs)} marks)", *lines, sep="\n  ")
    wrong = [line for line in lines if not line.startswith(("failed", "skipped"))]
    assert not wrong, (
        f"INBOUNDS_HONESTY_SEED={seed}: these pass, or break, without what they claim to prove:\n" + "\n".join(wrong)
    )
    if all(outcome == "skipped" for outcome in seen.values()):
        pytest.skip("this host can run none of the marked tests")


def _project(place: Path, body: str) -> None:
    """A copy of this suite's machinery around one test file."""
    for name in ("tests", "tools", "docs", "src"):
        (place / name).mkdir()
    (place / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    for name in ("record.py", "requirements.py", "leftovers.py"):
        (place / "tools" / name).write_text((ROOT / "tools" / name).read_text())
    (place / "docs" / "requirements.json").write_text((ROOT / "docs" / "requirements.json").read_text())
    (place / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (place / "tests" / "test_it.py").write_text(body)


BODY = """
import os, pytest
@pytest.mark.req("C4", "E1")
@pytest.mark.without("wall")
def test_honest():
    assert os.environ.get("INBOUNDS_TEST_WITHOUT") != "wall"
@pytest.mark.req("F6")
@pytest.mark.without("moat")
def test_vacuous():
    assert True
@pytest.mark.req("A1")
def test_skipped():
    pytest.skip("no reason")
@pytest.mark.req("A2")
@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""


def _in(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "INBOUNDS_"))}
    return subprocess.run([sys.executable, *argv], cwd=place, env=clean, capture_output=True, text=True, check=False)


def test_only_a_passed_test_proves_a_requirement(tmp_path: Path) -> None:
    _project(tmp_path, BODY)
    printed = _in(tmp_path, "tools/requirements.py")
    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert printed.stdout.splitlines()[-1] == "proven: 3 of 160"  # C4, E1, F6; neither the skip nor the xfail
    (tmp_path / "tests" / "test_it.py").write_text(BODY.replace("assert True", "assert False"))
    printed = _in(tmp_path, "tools/requirements.py")
    assert printed.returncode == 1, "a record of other sources was taken"
    assert printed.stdout.splitlines()[-1] == "proven: 2 of 160"


def test_an_unknown_requirement_fails_its_test(tmp_path: Path) -> None:
    _project(tmp_path, BODY.replace('"A1"', '"Z9"').replace('pytest.skip("no reason")', "pass"))
    done = _in(tmp_path, "-m", "pytest", "-q", "tests/test_it.py")
    assert done.returncode == 1
    assert "docs/requirements.json has no Z9" in done.stdout
    assert _in(tmp_path, "tools/requirements.py").returncode == 1


def test_without_tells_an_honest_mark_from_a_vacuous_one(tmp_path: Path) -> None:
    _project(tmp_path, BODY)
    honest = _in(tmp_path, "-m", "pytest", "-q", "--without", "wall")
    assert honest.returncode == 0, honest.stdout + honest.stderr
    assert "test_honest: fails, as it must" in honest.stdout
    assert "test_vacuous" not in honest.stdout
    vacuous = _in(tmp_path, "-m", "pytest", "-q", "--without", "moat")
    assert vacuous.returncode == 1, vacuous.stdout
    assert "PASSED: this mark is not honest" in vacuous.stdout
    assert not (tmp_path / ".cache" / "requirements.json").exists(), "a run without a mechanism is no proof"


def test_the_catalogue_is_whole() -> None:
    entries = json.loads((ROOT / "docs" / "requirements.json").read_text())
    assert len(entries) == len({entry["id"] for entry in entries}) == 160
    assert all(entry.keys() == {"id", "section", "text"} and all(entry.values()) for entry in entries)
