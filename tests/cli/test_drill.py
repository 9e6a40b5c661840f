"""`inbounds drill`: every class holds here, the facts are as documented, and a case from outside is run and judged."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inbounds.cli import drill as verb
from inbounds.drill import case as cases
from inbounds.drill import record, report, runner
from inbounds.journal.signing import public_key
from inbounds.sandbox.probe import probe

SECONDS = 280
FIELDS = {"id", "class", "requirement", "outcome", "control", "observed", "ms"}
MINE = """
CONTROL = '''
open(HOST["outside"] + "/mine", "w").write("x")
'''
ATTACK = CONTROL
def observe(before, after):
    return after["outside"] != before["outside"]
"""


@pytest.fixture(autouse=True)
def jails() -> None:
    facts = probe()
    if facts.level == 0:
        pytest.skip(f"no jail can be made here: {facts.problem}; {facts.fix}")


def drill(inbounds: Any, *args: str) -> dict[str, Any]:
    done = inbounds("drill", *args, "--json", timeout=SECONDS)
    facts = json.loads(done.stdout)
    assert isinstance(facts, dict), done.stderr
    return {**facts, "exit": done.returncode, "stderr": done.stderr}


@pytest.mark.slow
@pytest.mark.req("M9", "M10", "M11", "M12")
@pytest.mark.parametrize("klass", cases.CLASSES)
def test_nothing_escapes_here(home: Path, inbounds: Any, tmp_path: Path, klass: str) -> None:
    found = drill(inbounds, str(tmp_path), "--class", klass)
    bad = [case for case in found["cases"] if case["outcome"] in ("ESCAPED", "INCONCLUSIVE")]
    assert not bad, bad
    assert found["exit"] == 0, found
    assert found["counted"] > 0
    assert {case["class"] for case in found["cases"]} == {klass}
    assert all(set(case) == FIELDS for case in found["cases"])
    assert all((case["outcome"] == "NO CONTROL") == (case["control"] == "NO CONTROL") for case in found["cases"])
    assert found["counted"] + found["no_control"] == len(found["cases"])
    [kept] = record.drills(home)
    evidence = record.read(kept, public_key(home / "keys"))
    assert (evidence.problem, evidence.cases, evidence.clean) == ("", len(found["cases"]), False)  # one class only


def test_the_facts_say_what_was_drilled(home: Path, inbounds: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    found = drill(inbounds, str(tmp_path), "--case", str(path))
    assert found["exit"] == 0, found
    assert (found["mode"], found["counted"], found["escaped"]) == ("rootless", 1, 0)
    assert {"level", "started_at", "no_control", "inconclusive", "enforcement", "drill_id", "kernel"} <= set(found)
    [case] = found["cases"]
    assert set(case) == FIELDS
    assert (case["id"], case["class"], case["outcome"], case["control"]) == (
        "external.mine", "external", "BLOCKED", "proven",
    )  # fmt: skip
    assert case["ms"] > 0


@pytest.mark.parametrize(
    ("attack", "outcome", "code"),
    [
        ("CONTROL", "BLOCKED", 0),
        ("'''print('I did not try')'''", "BLOCKED", 0),  # its own observe has the word
        ("'''undefined'''", "INCONCLUSIVE", 1),
        ("'''say(x=1)\nundefined'''", "INCONCLUSIVE", 1),
    ],
)
def test_an_external_attack_that_breaks_is_no_pass(
    home: Path, inbounds: Any, tmp_path: Path, attack: str, outcome: str, code: int
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("ATTACK = CONTROL", f"ATTACK = {attack}"))
    found = drill(inbounds, str(tmp_path), "--case", str(path))
    assert ([case["outcome"] for case in found["cases"]], found["exit"]) == ([outcome], code)


def test_an_external_control_that_does_nothing_counts_for_nothing(home: Path, inbounds: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace('open(HOST["outside"] + "/mine", "w").write("x")', "pass"))
    found = drill(inbounds, str(tmp_path), "--case", str(path))
    assert [case["control"] for case in found["cases"]] == ["NO CONTROL"]
    assert (found["counted"], found["no_control"], found["exit"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("observe", "outcome"),
    [
        ("return 'ESCAPED' if before['outside'] != after['outside'] else 'CONTAINED'", "CONTAINED"),
        ("return ('ESCAPED', 'w') if before['outside'] != after['outside'] else ('DETECTED', 'w')", "DETECTED"),
    ],
)
def test_observe_may_answer_a_word_or_a_pair(
    home: Path, inbounds: Any, tmp_path: Path, observe: str, outcome: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace('return after["outside"] != before["outside"]', observe))
    assert [case["outcome"] for case in drill(inbounds, str(tmp_path), "--case", str(path))["cases"]] == [outcome]


def test_a_relative_case_is_found_from_where_one_is(
    home: Path, inbounds: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    assert drill(inbounds, "--case", "mine.py")["exit"] == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read"),
        ("CONTROL = '''", "no Python"),
        ("CONTROL = ATTACK = 'pass'", "observe is missing"),
        (MINE.replace("return", "raise ValueError('mine')\n    return"), "observe raised ValueError: mine"),
        (MINE.replace("return", "return 5\n    return"), "observe answered 5"),
    ],
)
def test_a_case_that_is_none_is_the_operators_to_mend(
    home: Path, inbounds: Any, tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    found = drill(inbounds, str(tmp_path), "--case", str(path))
    assert found["exit"] == 100
    assert why in found["error"]["found"]
    assert str(path) in found["error"]["where"]


def test_what_cannot_be_drilled_is_said(home: Path, inbounds: Any, tmp_path: Path) -> None:
    assert drill(inbounds, str(tmp_path / "nowhere"))["exit"] == 100
    assert inbounds("drill", "--class", "nonsense").returncode == 100
    (tmp_path / "mine.py").write_text(MINE)
    both = drill(inbounds, str(tmp_path), "--case", str(tmp_path / "mine.py"), "--class", "network")
    assert both["exit"] == 100


def test_a_policy_that_does_not_hold_is_not_replaced_by_another(home: Path, inbounds: Any, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "r")], check=True)
    (tmp_path / "r" / ".inbounds").mkdir()
    (tmp_path / "r" / ".inbounds" / "policy.yaml").write_text("nonsense: true\n")
    assert drill(inbounds, str(tmp_path / "r"), "--class", "network")["exit"] == 100


def test_the_jails_are_those_of_the_directorys_policy(home: Path, inbounds: Any, tmp_path: Path) -> None:
    repository = tmp_path / "r"
    (repository / "billing" / ".inbounds").mkdir(parents=True)
    (repository / ".inbounds").mkdir()
    (repository / ".inbounds" / "policy.yaml").write_text("version: 1\noperators: []\nlimits: {processes: 99}\n")
    config = repository / "billing" / ".inbounds" / "config.yaml"
    config.write_text('version: 1\nowner: "a <a@example.com>"\nlimits: {processes: 37}\n')
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    path = tmp_path / "mine.py"
    path.write_text(
        'CONTROL = """say(processes=HOST["limits"]["processes"], work=WORK, outside=True)"""\n'
        'ATTACK = """say(processes=HOST["limits"]["processes"], work=WORK)"""\n'
        'def observe(b, a):\n    return ("ESCAPED" if a["said"].get("outside") else "BLOCKED"), str(a["said"])\n'
    )
    found = drill(inbounds, str(repository / "billing"), "--case", str(path))
    assert found["exit"] == 0, found
    assert found["cases"][0]["observed"] == "{'processes': 37, 'work': '/work/billing'}"
    assert "thread billing" in found["ground"]


def test_the_text_is_for_people(home: Path, inbounds: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    done = inbounds("drill", str(tmp_path), "--case", str(path), timeout=SECONDS)
    assert done.returncode == 0
    assert "1 of 1 cases count, 0 escaped" in done.stdout


def test_the_report_names_each_escape_and_what_to_type() -> None:
    made = cases.load(Path(cases.__file__).parent / "cases" / "network_udp.py")
    results = [
        runner.Result(made, outcome, "proven", f"what {outcome} was", 5)
        for outcome in ("ESCAPED", "BLOCKED", "INCONCLUSIVE", "NO CONTROL")
    ]
    counts = report.summary(results)
    assert (counts["counted"], counts["escaped"], counts["inconclusive"], counts["no_control"]) == (2, 1, 1, 1)
    facts = {
        "ground": "x",
        "mode": "rootless",
        "level": 2,
        "ms": 5,
        "cases": [r.as_record() for r in results],
        **counts,
    }
    text = "\n".join(report.lines(facts))
    for words in ("what ESCAPED was", "what INCONCLUSIVE was", "what NO CONTROL was", "inbounds doctor"):
        assert words in text
    assert "what BLOCKED was" not in text


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [(["BLOCKED"], 0), (["BLOCKED", "NO CONTROL"], 0), (["ESCAPED", "BLOCKED"], 1), (["INCONCLUSIVE", "BLOCKED"], 1),
     (["NO CONTROL"], 1), ([], 1)],
)  # fmt: skip
def test_the_exit_code_is_kept_only_for_a_drill_that_says_something(outcomes: list[str], code: int) -> None:
    made = cases.load(Path(cases.__file__).parent / "cases" / "network_udp.py")
    results = [runner.Result(made, outcome, "proven", "", 5) for outcome in outcomes]
    assert report.exit_code(report.summary(results)) == code


def test_the_help_names_the_classes_that_there_are() -> None:
    assert verb.CLASSES == cases.CLASSES
