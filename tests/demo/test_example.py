"""The bundled repository and its scripts: what the demo's first act promises is true of the files themselves."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import inbounds
from inbounds.discover import owners
from inbounds.discover import tests as found_tests
from inbounds.modelserver import script

DEMO = Path(inbounds.__file__).parent / "demo"
WORK = "/work/"
ACCEPTANCE = {
    "test_a_hundred_units_are_five_percent_off",
    "test_five_hundred_units_are_ten_percent_off",
    "test_a_discount_is_printed",
}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO / "example", tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__")))


def failing(top: Path) -> set[str]:
    """Names of the tests of billing that fail; all others pass."""
    report = top.parent / "report.xml"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={report}",
        "billing",
        "shipping",
    ]
    env = {"PATH": os.environ["PATH"], "HOME": str(top.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=top, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert len(cases) == 14
    return {
        str(case.get("name")) for case in cases if case.find("failure") is not None or case.find("error") is not None
    }


def written(turns: tuple[script.Turn, ...], top: Path) -> None:
    """Carry out the writes of a conversation below `top`."""
    for call in (call for turn in turns for call in turn.calls if call.name == "write"):
        assert isinstance(call.arguments, dict)
        path = str(call.arguments["path"])
        assert path.startswith(WORK)
        (top / path.removeprefix(WORK)).write_text(str(call.arguments["content"]))


def test_only_the_acceptance_tests_fail_at_first(example: Path) -> None:
    assert failing(example) == ACCEPTANCE


def test_the_honest_script_needs_two_iterations(example: Path) -> None:
    played = script.load(str(DEMO / "scripts" / "honest.json"))
    second, first = played.conversations
    assert second.match == ("This is iteration 2",), "the words of run/prompt.py"
    written(first.turns, example)
    assert failing(example) == ACCEPTANCE - {"test_a_hundred_units_are_five_percent_off"}
    written(second.turns, example)
    assert failing(example) == set()


def test_the_expensive_script_has_no_end() -> None:
    played = script.load(str(DEMO / "scripts" / "expensive.json"))
    assert [talk.loop for talk in played.conversations] == [True]
    # Figures that follow from the sizes: a bill that the gateway's own bound covers.
    assert all(turn.usage is None and turn.calls for talk in played.conversations for turn in talk.turns)


def test_the_hostile_agent_succeeds_outside_any_jail(example: Path, tmp_path: Path) -> None:
    """The positive control of act 2 (M9): without containment its writes and its look at the credentials work."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\n")
    # Its calls out are left out: a test suite sends nothing to anybody.
    steps = ("other-thread", "shared-interface", "weaken-tests", "credentials")
    argv = [sys.executable, "-I", str(DEMO / "hostile_agent.py"), "0", *steps]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        argv, cwd=example / "billing", env=env, capture_output=True, text=True, timeout=60, check=True
    )
    outcome: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        outcome.setdefault(said["step"], set()).add(said["outcome"])
    assert outcome == {step: {"done"} for step in steps}
    assert "ABROAD = None" in (example / "shipping" / "rates.py").read_text()


def test_discovery_finds_what_init_needs(example: Path) -> None:
    seen = found_tests.find(example, "billing")
    assert [(one.runner, one.paths) for one in seen] == [("pytest", ("billing/tests",))]
    assert owners.owners_of(example, "billing").owners == ("maria@parcel.example",)


def test_the_requirements_are_pinned_by_hash() -> None:
    lines = (DEMO / "example" / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if "==" in line]
    assert len(pinned) == 5
    assert sum("--hash=sha256:" in line for line in lines) == 2 * len(pinned)
    assert not [line for line in lines if "://" in line]
