"""Faults during a run, for real: supervisor, gateway and broker killed, signals, tampering. Nothing stays alive, no
journal line is lost, and what is found afterwards ends the run in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faultrig
import pytest
from faultrig import HANGS, died, dying, ended, family, gone, inbounds, strike
from runrig import Living, Rig, script, write

from inbounds.contracts.errors import HostError
from inbounds.demo import outside
from inbounds.journal.verify import verify_run
from inbounds.run import launch, recovery
from inbounds.store.store import Store

# Written outside the plan's targets: the scope judge refuses it, and its stop quarantines.
OUT_OF_SCOPE = script(write("/work/billing/notes.txt", "not asked for\n"))


def asked(living: Living, rig: Rig) -> None:
    """Until the agent has asked its model: the request then hangs."""
    living.until("iteration.started")
    deadline = time.monotonic() + 30
    assert rig.server is not None
    while not rig.server.seen:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def nothing_left(rig: Rig, living: Living) -> None:
    ran = living.ran
    assert ran.alive() == []
    assert outside.mounts_of(ran.run_id) == []
    assert not list(Path("/tmp").glob(f"*{ran.run_id}*"))
    assert recovery.phase(rig.home, ran.run_id) == "finished"


MOMENTS: dict[str, Callable[[Living, Rig], None]] = {
    "accepted": lambda living, _: living.until("run.accepted"),
    "baseline": lambda living, _: living.until("jail.started", where=lambda data: data["role"] == "tester"),
    "iteration": asked,
    "judging": lambda living, _: living.until("verdict"),
}


@pytest.mark.req("E11", "E13", "H14", "H15", "G9")
@pytest.mark.parametrize(("moment", "verb"), [("accepted", "stop"), ("baseline", "status"), ("iteration", "status"),
                                              ("judging", "resume")])  # fmt: skip
def test_a_killed_supervisor_leaves_nothing_alive_and_is_recovered(rig: Rig, moment: str, verb: str) -> None:
    before = outside.fingerprint(rig.stage.repository)
    living = rig.start(HANGS if moment == "iteration" else script(write("/work/billing/tax.py", "RATES = {}\n")))
    MOMENTS[moment](living, rig)
    lines = strike(living, alone=moment == "accepted")
    ran = living.ran
    assert recovery.phase(rig.home, ran.run_id) == "orphaned"
    arguments = {"status": ("status", ran.run_id), "stop": ("stop", ran.run_id),
                 "resume": ("resume", ran.run_id, "--yes", "--sign-only", "--note", "the machine went away")}[verb]  # fmt: skip
    done = inbounds(rig, *arguments, "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    said = faultrig.facts(done)
    if verb == "status":
        (run,) = said["runs"]
        assert (run["phase"], run["recovered"]) == ("orphaned", False), "policy lets it go on: looking ends nothing"
        assert run["next"][:2] == [f"inbounds recover {ran.run_id}", f"inbounds stop {ran.run_id}"]
        assert inbounds(rig, "stop", ran.run_id).returncode == 0
    elif verb == "stop":
        assert said["stopped"][0]["code"] == "STOP_HOST_FAILED"
    else:
        assert said["statement"]["stop_code"] == "STOP_HOST_FAILED"
    ended(ran, lines, "STOP_HOST_FAILED")
    assert "journal.recovered" in ran.kinds()
    assert not (ran.run_dir / "workspace" / "rw").exists()
    if moment in ("iteration", "judging"):
        assert (ran.run_dir / "quarantine" / "billing" / "invoice.py").exists()
    if moment == "iteration":  # what was in flight stays charged: nobody knows whether the provider bills it
        spent = faultrig.totals(ran)
        assert spent.unknown_micro_usd > 0
        assert spent.reserved_micro_usd == spent.settled_micro_usd == 0
    nothing_left(rig, living)
    assert outside.fingerprint(rig.stage.repository) == before


WITHIN_THE_STOP = (
    ("inbounds.run.parts:Parts.close_doors", "before"),
    ("inbounds.run.parts:Parts.halt", "behind"),
    ("inbounds.run.stopping:evidence", "before"),
    ("inbounds.store.descent:make_inert", "before"),
    ("inbounds.sandbox.volume:Volume.quarantine", "behind"),
    ("inbounds.run.parts:Parts.stop_programs", "before"),
    ("inbounds.run.stopping:write_report", "before"),
)


@pytest.mark.req("E11", "E12", "E13", "H14")
@pytest.mark.parametrize(("target", "when"), WITHIN_THE_STOP, ids=[t.rpartition(":")[2] for t, _ in WITHIN_THE_STOP])
def test_a_supervisor_killed_within_its_stop_is_carried_on(rig: Rig, tmp_path: Path, target: str, when: str) -> None:
    with dying(tmp_path, target, when):
        living = rig.start(OUT_OF_SCOPE)
    lines = died(living)
    assert recovery.phase(rig.home, living.ran.run_id) == "orphaned"
    recovered = recovery.recover(rig.home, living.ran.run_id)
    assert recovered["code"] == "STOP_SCOPE_EXCEEDED", "the cause stays the cause, whatever happened on the way"
    ended(living.ran, lines, "STOP_SCOPE_EXCEEDED")
    assert (living.ran.run_dir / "quarantine" / "billing" / "notes.txt").exists()
    nothing_left(rig, living)


LANDING = (
    ("inbounds.sandbox.volume:Volume.discard", "before"),
    ("inbounds.run.promotion:promote", "before"),
    ("inbounds.run.promotion:promote", "behind"),
)


@pytest.mark.req("E12", "H14", "K3")
@pytest.mark.parametrize(("target", "when"), LANDING, ids=["discard", "promote", "promoted"])
def test_a_supervisor_killed_while_it_lands_a_result_lands_it_once(
    rig: Rig, tmp_path: Path, target: str, when: str
) -> None:
    from test_run_acts import played

    with dying(tmp_path, target, when):
        living = rig.start(played("honest"))
    lines = died(living)
    assert recovery.recover(rig.home, living.ran.run_id)["code"] == "DONE"
    ended(living.ran, lines, "DONE")
    (made,) = living.ran.data("promotion.decided")
    assert made["outcome"] == "promoted", made
    store = Store.open(living.ran.contract.store)
    assert store.ref("refs/heads/development") == made["commit"]
    assert store.tree_of(made["commit"]) == living.ran.data("commit.made")[-1]["tree"]
    assert not (living.ran.run_dir / "workspace").exists()
    nothing_left(rig, living)


@pytest.mark.req("E13", "H14")
def test_a_recovery_that_dies_is_recovered(rig: Rig, tmp_path: Path) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    lines = strike(living)
    program = (
        "import os, signal, sys; from pathlib import Path; from inbounds.run import parts, recovery; "
        "from inbounds.run.home import open_home; "
        "parts.Parts.survivors = lambda self: os.kill(os.getpid(), signal.SIGKILL); "
        "recovery.recover(open_home(Path(sys.argv[1])), sys.argv[2])"
    )
    first = subprocess.run(
        [sys.executable, "-I", "-c", program, str(rig.home.path), living.ran.run_id], capture_output=True, check=False
    )
    assert first.returncode == -signal.SIGKILL, first.stderr
    recovery.recover(rig.home, living.ran.run_id)
    ended(living.ran, lines, "STOP_HOST_FAILED")
    assert living.ran.kinds().count("journal.recovered") == 2
    nothing_left(rig, living)


@pytest.mark.req("H14")
def test_a_torn_last_line_is_kept_aside_and_the_run_ends(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    lines = strike(living)
    with (living.ran.run_dir / launch.JOURNAL).open("ab") as journal:
        journal.write(b'{"at_ms":17')  # what a power loss leaves of a line
    assert recovery.phase(rig.home, living.ran.run_id) == "orphaned"
    recovery.recover(rig.home, living.ran.run_id)
    ended(living.ran, lines, "STOP_HOST_FAILED")
    (aside,) = living.ran.run_dir.glob("journal.torn-*")
    assert aside.read_bytes() == b'{"at_ms":17'


@pytest.mark.req("E13")
def test_a_supervisor_that_never_wrote_a_line_is_ended_too(rig: Rig, tmp_path: Path) -> None:
    with dying(tmp_path, "inbounds.run.supervisor:Supervisor.starting"):
        living = rig.start(HANGS)
    living.started.process.wait(30)
    assert not (living.ran.run_dir / launch.JOURNAL).exists()
    assert recovery.phase(rig.home, living.ran.run_id) == "starting"
    os.utime(living.ran.run_dir, (1, 1))  # long ago
    assert recovery.phase(rig.home, living.ran.run_id) == "orphaned"
    assert inbounds(rig, "status", "--json").returncode == 0
    ended(living.ran, [], "STOP_HOST_FAILED")
    nothing_left(rig, living)
    # a supervisor that comes too late finds the run over, and does not begin it again
    late = launch.start(rig.home, living.ran.run_dir, b"{}").process
    assert late.wait(60) == HostError.exit_code
    assert "started before" in rig.log(living.ran)
    assert living.ran.kinds().count("run.accepted") == 1
    assert verify_run(living.ran.run_dir).ok


@pytest.mark.req("E12", "E13")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_in_order(rig: Rig, number: signal.Signals) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    mine, lines = family(living.started.process.pid), faultrig.lines(living.ran)
    living.started.process.send_signal(number)
    living.end()
    gone(mine)
    ended(living.ran, lines, "STOP_OPERATOR")
    assert living.ran.data("stop.decided")[0]["why"] == f"a signal: {number.name}"
    nothing_left(rig, living)


@pytest.mark.req("G1", "G9", "E13")
def test_a_gateway_that_dies_stops_the_run(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    mine, lines = family(living.started.process.pid), faultrig.lines(living.ran)
    os.kill(int(living.ran.data("gateway.started")[0]["pid"]), signal.SIGKILL)
    living.end()
    gone(mine)
    ended(living.ran, lines, "STOP_GATEWAY_FAILED")
    # it could not say whether the provider bills what was in flight: that stays spent, whoever asks
    spent = faultrig.totals(living.ran)
    assert spent.spent_micro_usd == spent.reserved_micro_usd + spent.unknown_micro_usd > 0
    nothing_left(rig, living)


@pytest.mark.req("E13")
def test_a_broker_that_dies_stops_the_run(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    mine, lines = family(living.started.process.pid), faultrig.lines(living.ran)
    os.kill(int(living.ran.data("broker.started")[0]["pid"]), signal.SIGKILL)
    living.end()
    gone(mine)
    ended(living.ran, lines, "STOP_HOST_FAILED")
    assert "broker" in living.ran.data("stop.decided")[0]["why"]
    nothing_left(rig, living)


@pytest.mark.req("E8", "E13")
def test_a_contract_that_changes_during_the_run_stops_it(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    path = living.ran.run_dir / launch.CONTRACT
    signed = path.read_bytes()
    looser = json.loads(signed)
    looser["limits"]["budget_micro_usd"] *= 100
    mine, lines = family(living.started.process.pid), faultrig.lines(living.ran)
    path.write_text(json.dumps(looser))
    living.end()
    gone(mine)
    assert living.ran.code == "STOP_TAMPERING"
    assert {check.name for check in verify_run(living.ran.run_dir).checks if not check.ok} == {"contract", "signatures"}
    path.write_bytes(signed)
    ended(living.ran, lines, "STOP_TAMPERING")
    nothing_left(rig, living)


@pytest.mark.parametrize("name", [launch.SETTINGS, launch.BLAST])
@pytest.mark.req("E8")
def test_what_else_was_frozen_and_changes_during_the_run_stops_it(rig: Rig, name: str) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    mine = family(living.started.process.pid)
    path = living.ran.run_dir / name
    frozen = path.read_bytes()
    path.write_bytes(json.dumps({**json.loads(frozen), "more": 1}).encode())
    living.end()
    gone(mine)
    assert living.ran.code == "STOP_TAMPERING"
    assert name in living.ran.data("stop.decided")[0]["why"]
    path.write_bytes(frozen)
    nothing_left(rig, living)


@pytest.mark.req("E8")
def test_a_blast_radius_that_changed_while_nobody_ran_is_tampering_too(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    strike(living)
    path = living.ran.run_dir / launch.BLAST
    path.write_bytes(json.dumps({**json.loads(path.read_bytes()), "more": 1}).encode())
    assert recovery.recover(rig.home, living.ran.run_id)["code"] == "STOP_TAMPERING"


@pytest.mark.req("E8", "E13")
def test_a_contract_that_changed_while_nobody_ran_is_tampering_too(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    lines = strike(living)
    path = living.ran.run_dir / launch.CONTRACT
    signed = path.read_bytes()
    other = json.loads(signed)
    other["branch"] = "main"
    path.write_text(json.dumps(other))
    assert recovery.recover(rig.home, living.ran.run_id)["code"] == "STOP_TAMPERING"
    path.write_bytes(signed)
    ended(living.ran, lines, "STOP_TAMPERING")
    path.write_bytes(b"{")
    for verb in ("review", "resume"):
        refused = inbounds(rig, verb, living.ran.run_id, "--json", *(["--yes"] if verb == "resume" else []))
        assert "Traceback" not in refused.stderr, refused.stderr
    assert faultrig.error(inbounds(rig, "resume", living.ran.run_id, "--yes", "--json"), 111)["fix"].startswith(
        "inbounds verify"
    )


@pytest.mark.req("H14")
@pytest.mark.parametrize("how", ["edited", "cut", "dropped"])
def test_a_journal_that_was_tampered_with_does_not_verify(rig: Rig, how: str) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    living.started.process.send_signal(signal.SIGTERM)
    living.end()
    path = living.ran.run_dir / launch.JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    assert inbounds(rig, "verify", living.ran.run_id, "--json").returncode == 0, "the control"
    middle = len(lines) // 2
    if how == "edited":
        lines[middle] = lines[middle].replace(b'"at_ms":1', b'"at_ms":2', 1)
    path.write_bytes(b"".join(lines[:-1] if how == "cut" else lines[:3] + lines[4:] if how == "dropped" else lines))
    done = inbounds(rig, "verify", living.ran.run_id, "--json")
    assert done.returncode == 1
    failed = [check for check in faultrig.facts(done)["checks"] if not check["ok"]]
    assert {check["name"] for check in failed} & {"chain", "anchors"}
    if how != "cut":
        refused = inbounds(rig, "resume", living.ran.run_id, "--yes", "--json")
        assert "inbounds verify" in faultrig.error(refused, 111)["fix"]


@pytest.mark.req("H14")
def test_the_supervisor_is_closed_to_other_programs_of_its_user(rig: Rig) -> None:
    living = rig.start(HANGS)
    asked(living, rig)
    pid = living.started.process.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert status["NoNewPrivs"] == "1"
    assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
    # a non-dumpable process's files in /proc are root's
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()
