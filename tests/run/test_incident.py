"""Incidents for real: runs of two state directories frozen at once, a dead supervisor, a deaf one, and the way on.

Nothing here looks at other runs of this host: what is stopped is handed in, or found with `--here`.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from faultrig import family, gone, inbounds
from runrig import Living, Ran, Rig

from inbounds.contracts.canonical import canonical
from inbounds.demo import acts, stage
from inbounds.journal import note, sshsig
from inbounds.journal.signing import public_key
from inbounds.journal.sshsig import OperatorKey
from inbounds.journal.verify import verify_run
from inbounds.run import (
    authorize,
    decision,
    incident,
    incident_record,
    launch,
    living,
    onward,
    reauthorize,
    recovery,
    requests,
)
from inbounds.run.home import Home, open_home
from inbounds.sandbox.census import look

HANGS = {"conversations": [{"turns": [{"fault": {"kind": "hang"}}], "loop": True}]}
POLICY = ".inbounds/policy.yaml"


@pytest.fixture
def elsewhere(tmp_path: Path, state_home: Home) -> Iterator[Rig]:
    """Another state directory of the same user, with the first one's dependency layers."""
    home = open_home(tmp_path / "other")
    home.layers.rmdir()
    shutil.copytree(state_home.layers, home.layers, symlinks=True, copy_function=os.link)
    made = Rig(home, stage.build(home.path))
    yield made
    made.close()


def busy(rig: Rig) -> Living:
    """A run whose agent waits for its model."""
    server = rig.server
    if server is None:
        server = rig.plays(HANGS)
    made = rig.order()
    contract = authorize.authorize(rig.home, made.contract, ask=lambda: True, key=rig.stage.key)
    run_dir = launch.prepare(rig.home, contract, made.blast, made.settings)
    found = Living(Ran(rig.home, run_dir), launch.start(rig.home, run_dir, made.upstreams()))
    rig.living.append(found)
    return found


def at_work(*runs: Living) -> list[living.Living]:
    """The supervisors of these runs as the host shows them, once their agents work; none of anybody else's."""
    for run in runs:
        run.until("iteration.started")
    pids = {run.started.process.pid for run in runs}
    found = [one for one in living.supervisors() if one.process.pid in pids]
    assert {one.process.pid for one in found} == pids, "the control: they are found from outside"
    return found


def record_of(made: incident.Incident) -> dict[str, Any]:
    """The record as it stands: of the published form, and signed by the journal key over its very bytes."""
    found = incident_record.read(made.place)
    schema = json.loads((resources.files("inbounds.run") / "incident.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    digest = hashlib.sha256((made.place / "incident.json").read_bytes()).hexdigest()
    signed = (made.place / "incident.sig").read_text()
    key = public_key(made.home.keys)
    assert note.opened(signed, key) == incident_record.statement(made.incident, digest)
    assert found["journal_key"] == str(key)
    with pytest.raises(note.NoteError):
        note.opened(signed.replace(digest[:8], "0" * 8), key)  # the control
    return found


@pytest.mark.req("O4", "E10", "E13")
def test_every_run_is_frozen_sealed_quarantined_and_on_record(rig: Rig, elsewhere: Rig) -> None:
    runs = [busy(rig), busy(rig), busy(elsewhere)]
    found = at_work(*runs)
    mine = [process for run in runs for process in family(run.started.process.pid)]
    first: list[dict[str, Any]] = []
    executing: list[str] = []

    def sealed(made: incident.Incident) -> None:
        first.append(record_of(made))
        for all_ in living.jailed(found).values():
            executing.extend(one.process.state for one in all_ if one.inside != 1 and one.process.runs)

    made = incident.declare(rig.home, who="dana", why="a key leaked", found=found, sealed=sealed)
    assert made.ok, made.problems
    assert executing == [], "nothing executes once the incident is on record"
    assert first[0]["status"] == "sealed"
    assert all(run["stop"] and run["sealed_at_ms"] for run in first[0]["runs"]), "sealed before it was written down"
    gone(mine)
    found_record = record_of(made)
    assert found_record["status"] == "ended"
    assert {run["run_id"] for run in found_record["runs"]} == {run.ran.run_id for run in runs}
    digest = hashlib.sha256((made.place / "incident.json").read_bytes()).hexdigest()
    for run in runs:
        ran = run.ran
        stated = next(one for one in found_record["runs"] if one["run_id"] == ran.run_id)
        assert ran.code == "STOP_OPERATOR" == stated["stop"]["code"]
        assert stated["stop"]["disposal"] == "quarantine"
        assert Path(stated["quarantine"]).is_dir()
        assert not (ran.run_dir / "workspace" / "rw").exists()
        assert stated["evidence_commit"]
        assert stated["frozen"]["how"] in ("SIGSTOP", "killed")
        asked = ran.data("operator.stopped")[0]
        assert (asked["who"], asked["why"], asked["incident"]) == ("dana", "a key leaked", True)
        assert asked["incident_id"] == made.incident
        stop = next(record for record in ran.records if record.kind == "stop.decided")
        assert stated["stop"]["hash"] == stop.hash
        sealed_by = next(r.at_ms for r in ran.records if r.kind == "journal.checkpoint" and r.seq > stop.seq)
        assert stated["sealed_at_ms"] == sealed_by
        assert ran.data("incident.recorded") == [{"incident": made.incident, "sha256": digest}]
        assert recovery.phase(ran.home, ran.run_id) == "finished"
        assert verify_run(ran.run_dir).ok, verify_run(ran.run_dir)
        assert ran.alive() == []
    times = [entry["at_ms"] for entry in found_record["timeline"]["entries"]]
    assert times == sorted(times)
    assert {entry["run_id"] for entry in found_record["timeline"]["entries"]} == {run.ran.run_id for run in runs}
    assert found_record["scopes"]["threads"]
    assert not any(key["rotate"] for key in found_record["scopes"]["keys"])
    typed = [command for step in found_record["next_steps"] for command in step["commands"]]
    for verb in ("review", "verify", "export", "resume", "discard"):
        assert any(command.startswith(f"inbounds {verb} ") for command in typed), verb
    words = (made.place / "incident.md").read_text()
    assert all(run.ran.run_id in words for run in runs)


@pytest.mark.req("O4", "H15")
def test_dead_supervisors_are_ended_and_a_deaf_one_is_named(rig: Rig) -> None:
    dead, deaf, over = busy(rig), busy(rig), busy(rig)
    at_work(dead, deaf, over)
    requests.ask_stop(over.ran.run_dir, who="test", why="before")
    over.end()
    before = len(over.ran.records)
    mine = family(dead.started.process.pid)
    dead.kill_supervisor()
    gone(mine)
    os.kill(deaf.started.process.pid, signal.SIGSTOP)
    (jailed,) = living.jailed(at_work(deaf)).values()
    assert jailed, "the control: it has a jail"
    try:
        made = incident.declare(rig.home, who="dana", why="y", found=at_work(deaf), answer_s=2)
        assert not made.ok
        stated = {run["run_id"]: run for run in record_of(made)["runs"]}
        assert record_of(made)["status"] == "incomplete"
        assert over.ran.run_id not in stated
        assert len(over.ran.records) == before, "a finished run is left alone"
        assert stated[deaf.ran.run_id]["answered"] is False
        assert "did not answer" in stated[deaf.ran.run_id]["problem"]
        assert any(deaf.ran.run_id in problem for problem in made.problems)
        deadline = time.monotonic() + 10
        while alive := [now for one in jailed if (now := look(one.process.pid)) and not now.ended]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.02)
    finally:
        os.kill(deaf.started.process.pid, signal.SIGCONT)
    assert stated[dead.ran.run_id]["phase"] == "orphaned"
    assert dead.ran.kinds().count("journal.recovered") == 1
    assert dead.ran.code == "STOP_OPERATOR"
    assert dead.ran.data("operator.stopped")[0]["incident"] is True
    assert verify_run(dead.ran.run_dir).ok
    deaf.end()  # it finds the request once it can, or that its agent is gone
    assert verify_run(deaf.ran.run_dir).ok


def another_key(rig: Rig, name: str) -> OperatorKey:
    place = rig.stage.repository.parent / name
    place.mkdir()
    made = sshsig.operator_key(place, {"HOME": str(place), "PATH": os.environ.get("PATH", "/usr/bin:/bin")})
    return replace(made, principal=name)


def signs(rig: Rig, run_id: str, name: str, key: OperatorKey) -> None:
    """A signed decision in the journal, as `inbounds resume --sign-only` puts it there."""
    statement = decision.reauthorization(rig.home, run_id, "seen")
    armored = sshsig.sign(key, canonical(statement), authorize.APPROVAL_NAMESPACE)
    kept = {"kind": "resume", "operator": name, "statement": statement, "signature": armored}
    decision.append(rig.home, run_id, "operator.decision", kept)


@pytest.mark.req("O4", "E14", "N7")
def test_going_on_after_an_incident_takes_the_approvals_that_policy_names(rig: Rig) -> None:
    second, stranger = another_key(rig, "second"), another_key(rig, "stranger")
    text = (rig.stage.repository / POLICY).read_text()
    text = text.replace("operators:\n", f'operators:\n  - name: second\n    key: "{second.public}"\n', 1)
    rig.edit(POLICY, text + "conduct:\n  resume: {approvals: 1, after_incident: 2}\n")
    run = busy(rig)
    made = incident.declare(rig.home, who="dana", why="y", found=at_work(run))
    assert made.ok, made.problems
    run_id, contract = run.ran.run_id, run.ran.contract
    (stated,) = [one for one in record_of(made)["runs"] if one["run_id"] == run_id]
    assert stated["approvals"] == {"wanted": 2, "by": sorted(contract.operator_keys)}
    first = inbounds(rig, "resume", run_id, "--yes", "--note", "seen")
    assert first.returncode == 1, first.stderr
    assert "1 of 2 signatures" in first.stdout
    assert reauthorize.granted(run.ran.run_dir, contract) is None
    # the same person twice, and somebody whom policy does not name: still one
    signs(rig, run_id, contract.operator, rig.stage.key)
    signs(rig, run_id, "second", stranger)
    assert onward.missing_approvals(rig.home, run_id) == (1, 2)
    refused = onward_started(rig, run_id)
    assert refused == 1
    assert not run.ran.data("run.reauthorized")
    signs(rig, run_id, "second", second)
    assert onward.missing_approvals(rig.home, run_id) == (2, 2)
    granted = reauthorize.granted(run.ran.run_dir, contract)
    assert granted is not None
    assert granted["operators"] == sorted([contract.operator, "second"])


def onward_started(rig: Rig, run_id: str) -> int:
    """What a supervisor says that is started to take the run up: the kernel is asked, too."""
    assert rig.server is not None
    keys = json.dumps(acts.provider(rig.server)[1]).encode()
    return launch.start(rig.home, rig.home.run(run_id), keys, "resume").process.wait(60)


@pytest.mark.req("O4")
def test_the_command_stops_this_state_directory_and_says_when(rig: Rig, elsewhere: Rig) -> None:
    run, other = busy(rig), busy(elsewhere)
    at_work(run, other)
    done = inbounds(rig, "stop", "--all", "--here", "--why", "drill", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    stopped = next(one for one in told["stopped"] if one["run_id"] == run.ran.run_id)
    assert stopped["asked_at_ms"] <= stopped["lease_closed_at_ms"] <= stopped["sealed_at_ms"] <= stopped["ended_at_ms"]
    assert json.loads(Path(told["record"]).read_bytes())["why"] == "drill"
    assert other.started.process.poll() is None, "the control: another state directory's run goes on"
    one = inbounds(elsewhere, "stop", other.ran.run_id, "--json")
    assert one.returncode == 0, one.stderr
    (item,) = json.loads(one.stdout)["stopped"]
    assert item["code"] == "STOP_OPERATOR"
    assert item["asked_at_ms"] <= item["sealed_at_ms"] <= item["ended_at_ms"]
    assert other.ran.data("operator.stopped")[0]["incident"] is False
    assert other.ran.data("stop.decided")[0]["disposal"] == "revert"


def test_a_program_in_a_jail_or_with_another_directory_is_no_supervisor(rig: Rig, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "20260101-000000-abcdef"
    run_dir.mkdir(parents=True, mode=0o700)
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "inbounds.run", str(run_dir)]
    claims = subprocess.Popen(argv)
    try:

        def seen() -> bool:
            return any(one.process.pid == claims.pid for one in living.supervisors())

        deadline = time.monotonic() + 10
        while not seen():
            assert time.monotonic() < deadline, "the control: a private directory of its own and its command line"
        (run_dir / "journal.lock").write_text(json.dumps({"pid": 1}))
        assert not seen(), "its lock names another process"
        (run_dir / "journal.lock").unlink()
        run_dir.chmod(0o755)
        assert not seen(), "others could have written there"
    finally:
        claims.kill()
        claims.wait()


@pytest.mark.req("O4")
def test_root_asks_other_users_supervisors_in_order_and_writes_nothing_of_theirs(rig: Rig, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may signal another user's process")
    uid = 65_534
    run_dir = tmp_path / "runs" / "20260101-000000-abcdef"
    run_dir.mkdir(parents=True, mode=0o700)
    os.chown(run_dir, uid, uid)
    argv = ["/bin/sh", "-c", "while :; do sleep 0.05; done", "-m", "inbounds.run", str(run_dir)]
    theirs = subprocess.Popen(argv, user=uid, group=uid, extra_groups=[], cwd="/")
    try:
        deadline = time.monotonic() + 10
        while not (found := [one for one in living.supervisors() if one.process.pid == theirs.pid]):
            assert time.monotonic() < deadline, "the control: it shows as a supervisor of its own user"
        made = incident.declare(rig.home, who="root", why="y", found=found)
        assert theirs.wait(10) == -signal.SIGTERM
        (other,) = record_of(made)["others"]
        assert (other["uid"], other["pid"]) == (uid, theirs.pid)
        assert "it has ended" in other["outcome"]
        assert list(run_dir.iterdir()) == []
    finally:
        theirs.kill()
        theirs.wait()


@pytest.mark.req("O4")
def test_init_writes_a_response_plan_with_what_policy_says_and_keeps_one_that_is_there(rig: Rig) -> None:
    text = (rig.stage.repository / POLICY).read_text()
    second = another_key(rig, "second")
    text = text.replace("operators:\n", f'operators:\n  - name: second\n    key: "{second.public}"\n', 1)
    rig.edit(POLICY, text + "conduct:\n  resume: {after_incident: 2}\n")
    plan = rig.stage.repository / ".inbounds" / "INCIDENT.md"
    done = inbounds(rig, "init", "billing", "--json")
    assert done.returncode == 0, done.stderr
    assert ".inbounds/INCIDENT.md" in json.loads(done.stdout)["written"]
    written = plan.read_text()
    assert "takes 2 signatures by: " in written
    assert "| operator | second |" in written
    assert "{" not in written
    plan.write_text("ours\n")
    again = inbounds(rig, "init", "billing", "--json")
    assert ".inbounds/INCIDENT.md" in json.loads(again.stdout)["kept"]
    assert plan.read_text() == "ours\n"
