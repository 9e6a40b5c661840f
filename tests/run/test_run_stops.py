"""Runs that reach a limit, for real: each ends with its code, in order, and leaves nothing alive.

Every test has its control: the same agent below the limit goes on. What is switched off for `without` is the limit,
set out of reach, because the supervisor is a process of its own.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aftermath import Watch, eventually, iterations, limits, off, rogue, said, seconds_to_stop
from runrig import Rig, script, write

from inbounds.demo import outside
from inbounds.run import launch, requests

PLAN = "billing/.inbounds/WORK_PLAN.json"
POLICY = ".inbounds/policy.yaml"
FOREVER = "while True:\n    time.sleep(60)\n"
IDLE = script({"text": "Nothing to do."})
NOTE = script(write("notes.py", '"""Notes."""\n'), {"text": "I wrote a note."})


@pytest.fixture(autouse=True)
def roomy(rig: Rig) -> None:
    """A policy that allows more than the defaults, so that each test narrows one limit and no other is in its way."""
    text = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, text.replace("limits:\n", "limits:\n  no_progress: 100\n  turns: 5000\n"))
    plan(rig, no_progress=100)


def plan(rig: Rig, **changed: object) -> None:
    """Change the plan's limits."""
    path = rig.stage.repository / PLAN
    found = json.loads(path.read_text())
    found["limits"].update(changed)
    rig.edit(PLAN, json.dumps(found))


@pytest.mark.req("E5", "E6", "M7", "H20")
@pytest.mark.without("no-progress-cap")
def test_iterations_without_a_test_gained_end_the_run(rig: Rig) -> None:
    plan(rig, no_progress=100 if off("no-progress-cap") else 1, iterations=2)
    ran = Watch(rig).check(rig.run(NOTE), "STOP_NO_PROGRESS")
    assert iterations(ran) == 1
    assert [item["progress"] for item in ran.data("iteration.finished")] == [False]
    # control: with a higher cap the same agent goes on, until the iterations are used up
    plan(rig, no_progress=100)
    ran = Watch(rig).check(rig.run(NOTE), "STOP_ITERATIONS_EXCEEDED")
    assert iterations(ran) == 2
    assert [item["progress"] for item in ran.data("iteration.finished")] == [False, False]


@pytest.mark.req("E5")
@pytest.mark.without("turn-cap")
def test_model_turns_are_capped_in_each_iteration_and_the_run_goes_on(rig: Rig, tmp_path: Path) -> None:
    insists = rogue(
        tmp_path, "for turn in range(6):\n    status, _ = ask()\n    say(turn=turn, status=status)\n" + FOREVER
    )
    turns = 100 if off("turn-cap") else 3
    watch = Watch(rig)
    ran = rig.run(IDLE, install=insists, **limits(turns=turns, iterations=2, wall_clock="25s"))
    # an iteration that its cap ended is judged like any other, and the next one begins
    watch.check(ran, "STOP_ITERATIONS_EXCEEDED")
    assert [item["reason"] for item in ran.data("jail.exited") if item["role"] == "coder"] == ["killed", "killed"]
    assert rig.server is not None
    assert len(rig.server.seen) == len(ran.data("model.usage")) == 6, "three turns in each of two iterations"


@pytest.mark.req("E1", "E9", "E10")
@pytest.mark.without("wall-clock")
def test_an_agent_that_ignores_signals_and_forks_twice_is_gone_at_the_deadline(rig: Rig, tmp_path: Path) -> None:
    marker = f"inbounds-marker-{time.monotonic_ns()}"
    daemon = rogue(
        tmp_path,
        f"""
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
if len(sys.argv) == 2:
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.execv("/proc/self/exe", ["python3", "-I", "-S", __file__, sys.argv[1], "{marker}"])
while True:
    time.sleep(0.01)
""",
    )
    watch = Watch(rig)
    wall_clock = "100s" if off("wall-clock") else "5s"
    living = rig.start(IDLE, install=daemon, **limits(wall_clock=wall_clock))
    assert len(eventually(lambda: len(outside.processes_of(marker)) >= 3 and outside.processes_of(marker))) == 3
    assert not living.ran.data("stop.decided"), "the control: they live while the run does"
    deadline = time.monotonic() + 15
    while living.started.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living.started.process.poll() is not None, "it is over soon after its deadline"
    ran = watch.check(living.end(), "STOP_RUNTIME_EXCEEDED", marker=marker)
    records = ran.records
    killed = next(r for r in records if r.data.get("step") == "killed")
    lived = (killed.at_ms - records[0].at_ms) / 1000
    print(f"all dead {lived:.2f} s after the run began, 5 s allowed")
    assert 5 <= lived < 5 + 5


@pytest.mark.req("E1", "G9")
def test_a_model_that_never_answers_cannot_hold_a_run(rig: Rig) -> None:
    watch = Watch(rig)
    ran = rig.run(script({"text": "late", "fault": {"kind": "hang"}}), **limits(wall_clock="4s"))
    watch.check(ran, "STOP_RUNTIME_EXCEEDED")
    usage = ran.data("model.usage")
    assert usage, "the request was in flight"
    assert usage[-1]["spent_micro_usd"] > 0, "what was in flight counts as spent at its bound"


@pytest.mark.req("E2", "E9")
@pytest.mark.without("tool-call-cap")
def test_tool_calls_are_counted_without_the_agents_cooperation(rig: Rig, tmp_path: Path) -> None:
    # this agent carries no tool call out and reports none: they are counted from the model's replies
    keeps_silent = rogue(tmp_path, "for _ in range(4):\n    say(status=ask()[0])\n")
    greedy = script({"calls": [{"name": "read", "arguments": {}}] * 3}, loop=True)
    cap = 1_000 if off("tool-call-cap") else 5
    ran = rig.run(greedy, install=keeps_silent, **limits(tool_calls=cap, iterations=1))
    Watch(rig).check(ran, "STOP_TOOL_CALLS_EXCEEDED")
    assert rig.server is not None
    assert len(rig.server.seen) == 2, "the second reply is over the cap; no third request is let through"
    # control: with room for all twelve the same agent comes to its end
    ran = rig.run(greedy, install=keeps_silent, **limits(tool_calls=12, iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")
    assert sum(item["tool_calls"] for item in ran.data("model.usage")) == 12


@pytest.mark.req("E3")
@pytest.mark.without("file-cap")
def test_one_file_more_than_allowed_stops_the_run(rig: Rig, tmp_path: Path) -> None:
    many = 'for i in range({}):\n    write(f"new{{i}}.py", f"X = {{i}}\\n")\n'
    if off("file-cap"):
        plan(rig, file_changes=100)
    ran = rig.run(NOTE, install=rogue(tmp_path, many.format(6)), **limits(iterations=1))
    Watch(rig).check(ran, "STOP_FILES_EXCEEDED")
    assert ran.data("commit.made") == []
    assert ran.data("verdict") == [], "what is too much to review is not even judged"
    # control: as many as the plan allows
    ran = rig.run(NOTE, install=rogue(tmp_path, many.format(5)), **limits(iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")
    assert len(ran.data("commit.made")) == 1


@pytest.mark.req("E3")
def test_every_kind_of_change_counts_as_one(rig: Rig, tmp_path: Path) -> None:
    kinds = """
write("made.py", "X = 1\\n")                                             # a creation
open(os.path.join(HERE, "tax.py"), "a").write("\\n# edited\\n")         # an edit
os.unlink(os.path.join(HERE, "tests/test_tax.py"))                      # a deletion
os.rename(os.path.join(HERE, "invoice.py"), os.path.join(HERE, "bill.py"))  # a renaming
os.chmod(os.path.join(HERE, "__init__.py"), 0o755)                      # a change of mode
"""
    plan(rig, file_changes=4)
    ran = rig.run(NOTE, install=rogue(tmp_path, kinds), **limits(iterations=1))
    Watch(rig).check(ran, "STOP_FILES_EXCEEDED")
    taken = ran.data("snapshot.taken")[0]
    assert (taken["changed"], taken["iteration_changed"]) == (5, 5)
    assert sorted(change["status"][:1] for change in taken["changes"]) == ["A", "D", "M", "M", "R"]
    # control: one more is allowed, and the same agent's work is judged
    plan(rig, file_changes=5)
    ran = rig.run(NOTE, install=rogue(tmp_path, kinds), **limits(iterations=1))
    assert ran.data("verdict"), ran.code


@pytest.mark.without("memory-ceiling")
def test_processes_that_hold_too_much_memory_together_end_the_run(rig: Rig, tmp_path: Path) -> None:
    # each one stays below the ceiling of a single process
    hoards = """
held = []
for _ in range({}):
    if os.fork() == 0:
        held.append(b"x" * ({} << 20))
        while True:
            time.sleep(1)
time.sleep(2)
write("notes.py", "X = 1\\n")
"""
    ceiling = "4G" if off("memory-ceiling") else "400M"
    ran = rig.run(IDLE, install=rogue(tmp_path, hoards.format(3, 200)), **limits(memory=ceiling, iterations=1))
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")
    assert "memory" in ran.data("stop.decided")[0]["why"]
    # control: one of them is allowed
    ran = rig.run(IDLE, install=rogue(tmp_path, hoards.format(1, 200)), **limits(memory="400M", iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")


@pytest.mark.without("disk-ceiling")
def test_a_workspace_that_grows_too_large_ends_the_run(rig: Rig, tmp_path: Path) -> None:
    fills = """
for i in range({}):
    write(f"fill{{i}}.py", "# " + "x" * (1 << 20) + "\\n")
say(wrote=True)
time.sleep({})
"""
    ceiling = "1G" if off("disk-ceiling") else "4M"
    ran = rig.run(IDLE, install=rogue(tmp_path, fills.format(8, 8)), **limits(disk=ceiling, iterations=1))
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")
    polled = ran.data("volume.polled")
    print(f"polled: {polled[-1]['bytes']} bytes where 4 MiB are allowed; rootless has no quota")
    # control: below the ceiling, the judges' copies of it counted, too
    ran = rig.run(IDLE, install=rogue(tmp_path, fills.format(1, 0)), **limits(disk="4M", iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")


@pytest.mark.parametrize("kept", ["open", "in a socket's queue"])
def test_a_disk_that_is_filled_without_names_ends_the_run(rig: Rig, tmp_path: Path, kept: str) -> None:
    """Deleted files that are open can be asked for their sizes; in a queue they cannot, and what is gone tells."""
    fills = """
import os, socket
write("notes.py", "X = 1\\n")
holds = socket.socketpair()
for i in range({}):
    fd = os.open("fill", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, os.urandom(40 << 20))
    os.fsync(fd)
    os.unlink("fill")
    if {}:
        socket.send_fds(holds[0], [b"x"], [fd])
        os.close(fd)
say(wrote=True)
time.sleep({})
"""
    queue = kept != "open"
    ran = rig.run(IDLE, install=rogue(tmp_path, fills.format(5, queue, 20)), **limits(disk="100M", iterations=1))
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")
    assert ran.data("volume.polled")[-1]["bytes"] > 100 << 20
    # control: what is gone may be anybody's, as long as nothing is unseen
    ran = rig.run(IDLE, install=rogue(tmp_path, fills.format(1, queue, 1)), **limits(disk="100M", iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")


@pytest.mark.without("inode-ceiling")
def test_a_workspace_of_too_many_files_ends_the_run(rig: Rig, tmp_path: Path) -> None:
    fills = 'for i in range({}):\n    write(f"d{{i // 100}}/{{i}}", "")\nsay(wrote=True)\ntime.sleep({})\n'
    ceiling = 200_000 if off("inode-ceiling") else 500
    ran = rig.run(IDLE, install=rogue(tmp_path, fills.format(2_000, 8)), **limits(inodes=ceiling, iterations=1))
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")


@pytest.mark.without("process-ceiling")
def test_a_fork_bomb_is_bounded_and_dies_with_its_run(rig: Rig, tmp_path: Path) -> None:
    marker = f"inbounds-marker-{time.monotonic_ns()}"
    bomb = f"""
made = 0
try:
    while made < 300:
        if os.fork() == 0:
            if made % 10 == 0:
                os.execv("/proc/self/exe", ["python3", "-I", "-S", "-c", "import time; time.sleep(600)", "{marker}"])
            while True:
                time.sleep(60)
        made += 1
except OSError as error:
    say(made=made, error=error.errno)
write("notes.py", "X = 1\\n")
time.sleep(1)
"""
    ceiling = 512 if off("process-ceiling") else 40
    living = rig.start(IDLE, install=rogue(tmp_path, bomb), **limits(processes=ceiling, iterations=1))
    assert eventually(lambda: outside.processes_of(marker)), "the control: it could fork at all"
    assert subprocess.run([sys.executable, "-c", "pass"], check=False).returncode == 0, "the host still forks"
    ran = Watch(rig).check(living.end(), "STOP_ITERATIONS_EXCEEDED", marker=marker)
    told = json.loads(said(ran).splitlines()[0])
    assert 1 <= told["made"] < 40
    assert told["error"] == 11, "EAGAIN"


@pytest.mark.req("E10", "E11", "E12", "E13", "E14", "D5")
def test_a_person_stops_an_agent_at_work(rig: Rig, tmp_path: Path) -> None:
    marker = f"inbounds-marker-{time.monotonic_ns()}"
    busy = rogue(
        tmp_path,
        f"""
if os.fork() == 0:
    os.execv("/proc/self/exe", ["python3", "-I", "-S", __file__, sys.argv[1], "{marker}"])
i = 0
while True:
    i += 1
    write("invoice.py", f"X = {{i}}\\n")
    ask()
""",
    )
    watch = Watch(rig)
    turn = script({"text": "More.", "delay_ms": 50}, loop=True)
    living = rig.start(turn, install=busy, **limits(turns=5_000))
    living.until("model.usage", where=lambda data: data["request"] >= 3)
    assert outside.processes_of(marker)
    asked = time.time()
    told = subprocess.run(
        [sys.executable, "-m", "inbounds", "stop", living.ran.run_id, "--why", "lunch", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told
    assert json.loads(told.stdout)["stopped"][0]["code"] == "STOP_OPERATOR"
    assert outside.processes_of(marker) == [], "when the command returns, nothing is alive"
    ran = watch.check(living.end(), "STOP_OPERATOR", marker=marker)
    killed = next(r for r in ran.records if r.data.get("step") == "killed")
    latency = killed.at_ms / 1000 - asked
    print(f"from typing the command to no process alive: {latency:.2f} s, of it {seconds_to_stop(ran):.2f} s the stop")
    assert latency < 10
    assert "lunch" in ran.data("stop.decided")[0]["why"]
    # what the agent had written is evidence, and the workspace is back at the last safe checkpoint
    assert ran.data("snapshot.taken")[-1]["changes"][0]["path"] == "billing/invoice.py"
    assert (ran.run_dir / "diff.patch").stat().st_size > 0
    # nothing resumes by itself
    before = len(ran.records)
    time.sleep(1)
    assert len(ran.records) == before
    assert ran.alive() == []


@pytest.mark.req("E8", "M8")
def test_limits_changed_while_the_run_goes_end_it(rig: Rig, tmp_path: Path) -> None:
    slow = rogue(tmp_path, 'ask()\nwrite("notes.py", "X = 1\\n")\ntime.sleep(30)\n')
    watch = Watch(rig)
    living = rig.start(IDLE, install=slow, **limits(no_progress=1))
    living.until("model.usage")
    path = living.ran.run_dir / launch.CONTRACT
    agreed = path.read_bytes()
    path.write_bytes(agreed.replace(b'"no_progress":1', b'"no_progress":9'))
    assert path.read_bytes() != agreed
    living.started.process.wait(30)
    path.write_bytes(agreed)  # so that the rest of the evidence can be checked
    watch.check(living.ran, "STOP_TAMPERING")


@pytest.mark.req("G3", "G9", "E4")
@pytest.mark.without("month-cap")
def test_the_months_cap_stops_a_run_that_its_own_budget_would_allow(rig: Rig, tmp_path: Path) -> None:
    spends = rogue(tmp_path, "for _ in range(12):\n    say(status=ask()[0])\n")
    costly = script({"text": "Hm.", "usage": {"input": 50, "output": 900}}, loop=True)
    policy = (rig.stage.repository / POLICY).read_text()
    cap = "50" if off("month-cap") else "0.10"
    rig.edit(POLICY, policy + f'\nmonth:\n  thread_usd: "{cap}"\n')
    ran = rig.run(costly, install=spends, **limits(budget_usd="1", iterations=1))
    Watch(rig).check(ran, "STOP_BUDGET_EXCEEDED")
    assert "month" in ran.data("stop.decided")[0]["why"]
    spent = sum(item["cost_micro_usd"] for item in ran.data("model.usage"))
    assert 0 < spent <= 100_000
    # control: without the cap the same agent spends what it likes of its own budget
    rig.edit(POLICY, policy)
    ran = rig.run(costly, install=spends, **limits(budget_usd="1", iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")
    assert sum(item["cost_micro_usd"] for item in ran.data("model.usage")) > 100_000


def test_an_agent_that_ends_at_once_is_no_iteration_without_progress(rig: Rig, tmp_path: Path) -> None:
    # the control is every other test here: an agent that at least asks its model is given its iterations
    ran = rig.run(IDLE, install=rogue(tmp_path, "sys.exit(3)\n"))
    Watch(rig).check(ran, "STOP_AGENT_FAILED")
    assert iterations(ran) == 1


@pytest.mark.req("G1", "N6")
def test_an_unknown_model_is_refused_and_insisting_on_it_ends_the_run(rig: Rig, tmp_path: Path) -> None:
    insists = rogue(tmp_path, 'for _ in range(9):\n    say(status=ask(model="gpt-unheard-of")[0])\nask()\n')
    ran = rig.run(IDLE, install=insists, **limits(denials=3))
    Watch(rig).check(ran, "STOP_UNAUTHORIZED_ACCESS")
    assert rig.server is not None
    assert len(rig.server.seen) == 0, "none of them reached the provider"
    # control: refusals below the limit are the agent's affair
    ran = rig.run(IDLE, install=insists, **limits(denials=9, iterations=1))
    Watch(rig).check(ran, "STOP_ITERATIONS_EXCEEDED")
    assert [json.loads(line)["status"] for line in said(ran).splitlines()] == [403] * 9
    assert len(rig.server.seen) == 1


@pytest.mark.req("E10")
def test_tool_calls_that_wait_are_not_begun_once_the_run_stops(rig: Rig, tmp_path: Path) -> None:
    many = rogue(
        tmp_path,
        """
import threading

def run_tests(number):
    link = http.client.HTTPConnection("127.0.0.1", 8101, timeout=100)
    head = {"Authorization": "Bearer " + os.environ["INBOUNDS_TOKEN"], "Content-Type": "application/json"}
    link.request("POST", "/tools/run_tests", "{}", head)
    link.getresponse().read()

for number in range(6):
    threading.Thread(target=run_tests, args=(number,)).start()
time.sleep(60)
""",
    )
    watch = Watch(rig)
    living = rig.start(IDLE, install=many)
    living.until("tool.called")  # the control: they are answered while the run goes on
    requests.ask_stop(living.ran.run_dir, who="test", why="now")
    ran = watch.check(living.end(), "STOP_OPERATOR")
    stop = next(r.seq for r in ran.records if r.kind == "stop.decided")
    assert not [r for r in ran.records if r.seq > stop and r.kind == "jail.started"]
    outcomes = [call["outcome"] for call in ran.data("tool.called")]
    assert outcomes[0] == "ok"
    assert outcomes.count("ok") < 6, "the rest was refused, at the broker or behind it"
