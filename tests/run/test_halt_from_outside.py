"""A hardened run whose supervisor hangs: its slot is frozen and killed by another process, of a stop and of an incident."""

import contextlib
import os
import signal
from collections.abc import Iterator

import hostrig
import pytest
from aftermath import eventually
from runrig import Living as Started
from runrig import Rig
from test_run_hardened import alive, kept, working

from inbounds.cli import stop
from inbounds.contracts.errors import HostError
from inbounds.host import slots
from inbounds.host.protocol import Phase
from inbounds.journal.verify import verify_run
from inbounds.run import incident, living

WOKEN = ("STOP_OPERATOR", "STOP_AGENT_FAILED")  # it finds the request, or first that its agent is gone


def found(run: Started) -> living.Living:
    [one] = [one for one in living.supervisors() if one.process.pid == run.started.process.pid]
    return one


@contextlib.contextmanager
def hung(run: Started) -> Iterator[None]:
    """Its supervisor answers nothing, and its connection to the host service stands."""
    os.kill(run.started.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(run.started.process.pid, signal.SIGCONT)


@pytest.mark.req("E13", "F3", "O4")
def test_an_incident_freezes_and_kills_the_slot_of_a_supervisor_that_hangs(rig: Rig, host: hostrig.Rig) -> None:
    run, uid = working(rig)
    one = found(run)
    assert alive(uid)
    with hung(run):
        assert living.freeze([one]) == {one.run_dir: "cgroup.freeze"}
        assert alive(uid), "frozen, not killed: the evidence is as it was"
        made = incident.declare(rig.home, who="a test", why="it hangs", found=[one], answer_s=1.0)
        assert alive(uid) == []
    assert [(case.answered, case.how) for case in made.cases] == [(False, "killed (1 jails), its supervisor lives")]
    ran = run.end()
    assert ran.code in WOKEN, ran.data("stop.decided")
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[-1]["changes"]]
    assert verify_run(ran.run_dir).ok


@pytest.mark.req("E13", "F3")
def test_a_stop_of_one_run_ends_the_slots_processes_though_its_supervisor_hangs(
    rig: Rig, host: hostrig.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, uid = working(rig)
    monkeypatch.setattr(stop, "WAIT_S", 1.0)
    with hung(run):
        with pytest.raises(HostError, match="1 of its jails were ended, and its supervisor lives"):
            stop._stop(rig.home, run.ran.run_id, "a test", "it hangs")
        assert alive(uid) == []
        assert [record.phase for record in slots.records(host.paths).values()] == [Phase.OPEN]
    assert run.end().code in WOKEN


@pytest.mark.req("E13", "O4")
def test_an_incident_stops_a_hardened_run_in_order(rig: Rig, host: hostrig.Rig) -> None:
    run, uid = working(rig)
    made = incident.declare(rig.home, who="a test", why="to see it", found=[found(run)])
    assert [(case.how, case.problem) for case in made.cases] == [("cgroup.freeze", "")]
    assert alive(uid) == []
    ran = run.end()
    assert all(item["ok"] for item in ran.data("stop.step")), ran.data("stop.step")
    assert ran.data("stop.decided")[0]["disposal"] == "quarantine"
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[-1]["changes"]]
    eventually(lambda: kept(host) == [])
    assert verify_run(ran.run_dir).ok
