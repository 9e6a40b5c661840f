"""The verbs around a run, as processes of the installed command on real runs: signing, streaming, stopping, deciding."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
import shop_repository as shop
from person import Person, script, until, write

from inbounds.demo import outside

pytestmark = pytest.mark.slow

MODEL = "shop-model"
EVENT = re.compile(r"\d\d:\d\d:\d\d  [a-z_.]+ ")
ACCEPT = [word for test in shop.ACCEPT for word in ("--accept", test)]
FLAGS = ("--goal", shop.GOAL, *ACCEPT, "--agent", "reference", "--model", MODEL, "--budget", "2")
HONEST = script({"calls": [write(f"/work/{shop.SOURCE}", shop.SOLVED)]}, {"text": "Done."})
SLOW = script({"calls": [{"name": "list", "arguments": {"path": "/work"}}]}, {"text": "Thinking.", "delay_ms": 120_000})


@pytest.fixture
def person(person_at_work: Person) -> Person:
    """Somebody with a provider that solves the task."""
    plays(person_at_work, HONEST)
    return person_at_work


def plays(person: Person, played: dict[str, Any]) -> None:
    person.provider(played, "shop", formats=("openai-chat",), model=MODEL)


def signed(person: Person, *flags: str) -> None:
    done = person.runs("plan", "sign", ".", *(flags or FLAGS), "--yes")
    assert done.returncode == 0, done.stderr


def ran(person: Person) -> str:
    """A run to its end; its id."""
    signed(person)
    done = person.runs("run", ".", *FLAGS, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    return person.last()


def stopped(person: Person) -> str:
    """A run that a person stopped; its id."""
    plays(person, SLOW)
    signed(person)
    assert person.runs("run", ".", *FLAGS, "--yes", "--detach").returncode == 0
    run_id = person.last()
    until(lambda: any(record["kind"] == "model.usage" for record in journal(person, run_id)))
    done = person.runs("stop", run_id, "--why", "lunch")
    assert done.returncode == 0, done.stderr
    return run_id


def journal(person: Person, run_id: str) -> list[dict[str, Any]]:
    path = person.state_directory / "runs" / run_id / "journal.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


@pytest.mark.req("A8")
def test_without_accept_it_refuses_and_lists_what_fails_today(person: Person) -> None:
    before = runs(person)
    done = person.runs("run", ".", "--goal", shop.GOAL, "--yes")
    assert done.returncode == 1
    for test in (*shop.ACCEPT, *shop.OTHERWISE_FAILING):
        assert f"--accept {test}" in done.stderr
    assert "test_a_small_parcel" not in done.stderr
    assert runs(person) == before
    told = json.loads(person.runs("run", ".", "--goal", shop.GOAL, "--json", "--yes").stdout)
    assert told["exit"] == 1
    assert shop.ACCEPT[0] in told["error"]["expected"]


def runs(person: Person) -> set[str]:
    return {path.name for path in (person.state_directory / "runs").iterdir()}


@pytest.mark.req("J13")
def test_yes_is_for_a_signed_plan_only_and_any_change_voids_it(person: Person) -> None:
    before = runs(person)
    refused = person.runs("run", ".", *FLAGS, "--yes")
    assert refused.returncode == 1
    assert "not signed" in refused.stderr
    assert "inbounds plan sign" in refused.stderr
    nobody = person.runs("run", ".", *FLAGS)
    assert nobody.returncode == 100
    assert "nobody is here to sign" in nobody.stderr
    assert person.facts("plan", "show", ".", *FLAGS)["signed_by"] == ""
    assert runs(person) == before

    signed(person)
    assert person.facts("plan", "show", ".", *FLAGS)["signed_by"]
    for other in (("--budget", "3"), ("--iterations", "9"), ("--target", "src/**")):
        changed = [*FLAGS[:-2], *other] if other[0] == "--budget" else [*FLAGS, *other]
        assert person.runs("run", ".", *changed, "--yes").returncode == 1, other
    test = person.repository / "tests" / "test_surcharge.py"
    test.write_text(test.read_text() + "\n\ndef test_another():\n    pass\n")
    shop.git(person.repository, "commit", "--all", "--quiet", "--message", "the acceptance test's file changed")
    assert person.runs("run", ".", *FLAGS, "--yes").returncode == 1
    assert runs(person) == before


def test_a_plan_is_drafted_alike_and_written_once(person: Person) -> None:
    first, second = (person.facts("plan", "draft", ".", *FLAGS) for _ in range(2))
    assert first == second
    assert set(first["files"]) == {".inbounds/requirements.yaml", ".inbounds/WORK_PLAN.json"}
    assert first["written"] == []
    written = person.facts("plan", "draft", ".", *FLAGS, "--write")
    assert (person.repository / ".inbounds/WORK_PLAN.json").read_text() == first["files"][".inbounds/WORK_PLAN.json"]
    assert sorted(written["written"]) == sorted(first["files"])
    again = person.runs("plan", "draft", ".", *FLAGS, "--write")
    assert again.returncode == 100
    assert "is there already" in again.stderr
    # the files are a plan like any other: checked, signed beside them, run without flags
    assert person.facts("check", ".")["plan"].startswith("PLAN-")
    assert person.runs("run", ".", "--yes").returncode == 1
    assert person.facts("plan", "sign", ".", "--yes")["signed_by"]
    assert (person.repository / ".inbounds/WORK_PLAN.json.sig").read_text().startswith("-----BEGIN SSH SIGNATURE")
    done = person.runs("run", ".", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_terminal_each_line_is_an_event(person: Person) -> None:
    signed(person)
    (person.repository / "notes.txt").write_text("not committed\n")
    done = person.runs("run", ".", *FLAGS, "--yes")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(EVENT.match(line) for line in lines), done.stdout
    assert "the run is over: DONE" in lines[-1]
    assert "notes.txt" in done.stderr
    assert "git fetch" in done.stderr
    shown = shop.git(person.repository, "show", "--stat", "--format=", fetched(person, done.stderr))
    assert shop.SOURCE in shown
    assert "notes.txt" not in shown


def fetched(person: Person, text: str) -> str:
    found = re.search(r"git fetch (\S+) (\S+)", text)
    assert found, text
    shop.git(person.repository, "fetch", "--quiet", found[1], found[2])
    return "FETCH_HEAD"


def test_json_streams_records_and_nothing_else(person: Person) -> None:
    signed(person)
    process = person.starts("run", ".", *FLAGS, "--yes", "--json")
    assert process.stdout is not None
    arrived = [(time.monotonic(), json.loads(line)) for line in process.stdout]
    assert process.wait(30) == 0
    assert [record["seq"] for _, record in arrived] == list(range(len(arrived)))
    assert [record["kind"] for _, record in arrived[-2:]] == ["run.finished", "journal.checkpoint"]
    assert arrived[-1][0] - arrived[0][0] > 0.5  # as they happened, not at the end
    assert [record for _, record in arrived] == journal(person, person.last())[: len(arrived)]


def test_detach_gives_the_terminal_back_and_logs_follow(person: Person) -> None:
    signed(person)
    began = time.monotonic()
    done = person.runs("run", ".", *FLAGS, "--yes", "--detach", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert person.last() == facts["run_id"]
    followed = person.runs("logs", facts["run_id"], "--follow")
    assert followed.returncode == 0
    assert " asks reference " in followed.stdout
    assert "DONE" in followed.stdout.splitlines()[-1]
    assert time.monotonic() - began > 1
    until(lambda: not outside.processes_of(facts["run_id"]))


def test_the_first_interrupt_stops_the_run_and_repeats_nothing(person: Person) -> None:
    plays(person, SLOW)
    signed(person)
    process = person.starts("run", ".", *FLAGS, "--yes", "--json")
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["kind"] == "model.usage":
            os.killpg(process.pid, signal.SIGINT)
            break
    seen += [json.loads(line) for line in process.stdout]
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert "its evidence is kept" in process.stderr.read()
    assert [record["seq"] for record in seen] == list(range(len(seen)))
    stop = next(record["data"] for record in seen if record["kind"] == "stop.decided")
    assert stop["code"] == "STOP_OPERATOR", stop
    assert not outside.processes_of(person.last())
    assert person.facts("verify", person.last())


def test_what_is_not_committed_is_named_and_a_person_may_decline(person: Person) -> None:
    before = runs(person)
    (person.repository / "README.md").write_text("# changed\n")
    (person.repository / "draft.txt").write_text("new\n")
    terminal = person.types("run", ".", *FLAGS)
    shown = terminal.until("Enter signs")
    for name in ("README.md", "draft.txt"):
        assert f"stays out (not committed): {name}" in shown
    assert ".inbounds" not in shown.partition("stays out")[2]
    terminal.type("n\n")
    assert terminal.end() == 1
    assert "nothing was started" in terminal.text
    assert runs(person) == before


def test_an_interrupt_at_the_question_starts_nothing(person: Person) -> None:
    before = runs(person)
    terminal = person.types("run", ".", *FLAGS)
    terminal.until("Enter signs")
    terminal.type("\x03")
    assert terminal.end() == 1
    assert runs(person) == before


@pytest.mark.req("C4")
def test_a_shell_is_the_jail_and_passes_the_exit_code(person: Person) -> None:
    host = socket.create_server(("127.0.0.1", 0))
    code = f"import socket; socket.create_connection(('127.0.0.1', {host.getsockname()[1]}), 1)"
    subprocess.run([sys.executable, "-c", code], check=True)  # outside it works
    for argv, expected in (
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + 15),
        (["python", "-c", "import click, tariff"], 0),
        (["python", "-c", code], 1),
        (["sh", "-c", "echo x > .inbounds/policy.yaml"], 2),
    ):
        done = person.runs("shell", ".", "--", *argv)
        assert done.returncode == expected, f"{argv}: {done.returncode} {done.stderr}"
    tested = person.runs(
        "shell", ".", "--role", "tester", "--", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"
    )
    assert tested.returncode == 1
    assert "4 failed, 3 passed" in tested.stdout
    host.close()
    assert person.runs("shell", ".").returncode == 100
    assert not list(person.state_directory.glob("inbounds-shell-*"))
    assert shop.git(person.repository, "status", "--porcelain").split() == ["??", ".inbounds/"]


def test_a_shells_output_comes_as_it_is_written(person: Person) -> None:
    process = person.starts("shell", ".", "--", "sh", "-c", "echo first; sleep 3; echo second")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    at = time.monotonic()
    assert process.stdout.readline() == "second\n"
    assert time.monotonic() - at > 1.5
    assert process.wait(20) == 0
    hanging = person.starts("shell", ".", "--", "sh", "-c", "echo on; sleep 600")
    assert hanging.stdout is not None
    assert hanging.stdout.readline() == "on\n"
    os.killpg(hanging.pid, signal.SIGINT)
    assert hanging.wait(20) == 130
    assert not list(person.state_directory.glob("inbounds-shell-*"))


def test_a_shell_without_a_command_is_a_prompt_over_one_workspace(person: Person) -> None:
    terminal = person.types("shell", ".")
    terminal.until(r"coder:/work\$ ")
    terminal.type("echo hello > made.txt; id -u\n")
    terminal.until(r"\n1000\n")
    terminal.type("cat made.txt; exit 3\n")
    terminal.until(r"\nhello\n")
    terminal.type("exit\n")
    assert terminal.end() == 3
    assert not (person.repository / "made.txt").exists()


def test_the_layer_is_built_once_and_shown(person: Person) -> None:
    began = time.monotonic()
    built = person.facts("env", "build", ".")
    assert time.monotonic() - began < 5  # it was there
    assert built == person.facts("env", "show", ".")
    assert built["locked"] is True
    packages = {package["name"]: package["version"] for package in built["resolved"]}
    assert packages["click"] == "8.1.8"
    assert packages["attrs"] == "24.3.0"
    (person.repository / "requirements.txt").write_text(shop.REQUIREMENTS.replace("8.1.8", "8.1.7"))
    shop.git(person.repository, "commit", "--all", "--quiet", "--message", "another click")
    missing = person.runs("env", "show", ".")
    assert missing.returncode == 100
    assert "inbounds env build" in missing.stderr
    # the hash is the old version's
    failed = person.runs("env", "build", ".")
    assert failed.returncode == 100
    assert "hash" in failed.stderr.lower()
    assert not list((person.state_directory / "layers").glob("inbounds-layer-*"))


def test_check_names_sources_and_threads_are_made(person: Person) -> None:
    facts = person.facts("check", ".")
    assert facts["limits"]["budget_usd"]["from"].startswith(".inbounds/policy.yaml")
    assert facts["plan"] is None
    shown = person.runs("check")
    assert shown.returncode == 0
    assert ".inbounds/policy.yaml" in shown.stdout
    added = person.facts("thread", "add", "src/tariff")
    assert added["written"] == ["src/tariff/.inbounds/config.yaml"]
    rows = {row["thread"]: row for row in person.facts("thread", "list")["threads"]}
    assert set(rows) == {".", "src/tariff"}
    assert rows["src/tariff"]["owner"] == "Ida Person <ida@shop.example>"
    (person.repository / "src/tariff/.inbounds/config.yaml").write_text("version: 1\nowner: x\nbudget: 7\n")
    wrong = person.runs("check", "src/tariff")
    assert wrong.returncode == 100
    assert "src/tariff/.inbounds/config.yaml:3" in wrong.stderr
    assert "budget" in wrong.stderr


@pytest.mark.req("I2")
def test_a_result_is_approved_promoted_and_rolled_back(person: Person) -> None:
    run_id = ran(person)
    assert [r for r in journal(person, run_id) if r["kind"] == "promotion.decided"] == []  # policy says manual
    approved = person.facts("approve", run_id, "--yes", "--note", "read it")
    assert approved["statement"]["tree"] == person.data(run_id, "commit.made")[-1]["tree"]
    landed = person.facts("promote", run_id)
    assert landed["outcome"] == "promoted", landed
    store = person.data(run_id, "run.accepted")[0]["store"]
    shop.git(person.repository, "fetch", "--quiet", store, "development")
    assert shop.git(person.repository, "show", f"FETCH_HEAD:{shop.SOURCE}") == shop.SOLVED
    kept = person.runs("discard", run_id, "--yes")
    assert kept.returncode == 1
    assert f"inbounds rollback {run_id}" in kept.stderr
    undone = person.facts("rollback", run_id)
    assert undone["outcome"] == "rolled_back"
    shop.git(person.repository, "fetch", "--quiet", store, "development")
    assert shop.git(person.repository, "show", f"FETCH_HEAD:{shop.SOURCE}") == shop.QUOTE
    assert person.runs("rollback", run_id).returncode == 1
    assert person.facts("verify", run_id)
    review = person.runs("review", run_id)
    assert review.returncode == 0, review.stdout


@pytest.mark.req("E14")
def test_a_stopped_run_waits_for_a_signature_and_can_be_discarded(person: Person) -> None:
    run_id = stopped(person)
    nobody = person.runs("resume", run_id)
    assert nobody.returncode == 100
    kept = person.facts("resume", run_id, "--yes", "--sign-only", "--note", "go on")
    stop = next(record for record in journal(person, run_id) if record["kind"] == "stop.decided")
    assert kept["statement"]["stop_hash"] == stop["hash"]
    assert stop["data"]["why"].endswith("lunch"), stop
    for refused in (("approve", run_id, "--yes"), ("promote", run_id), ("rollback", run_id)):
        assert person.runs(*refused).returncode == 1, refused
    assert person.runs("discard", run_id).returncode == 100
    freed = person.facts("discard", run_id, "--yes")
    assert freed["bytes"] > 0
    assert not (person.state_directory / "runs" / run_id / "workspace").exists()
    assert person.facts("verify", run_id)
    assert person.facts("discard", run_id, "--yes", "--evidence")["evidence"] == "deleted"
    assert run_id not in runs(person)
