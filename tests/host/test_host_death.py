"""The service is killed while jails run: who ends them, what a restart finds; and a packet filter that is taken away."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from groups_rig import LOAD, PYTHON, alive, until
from hostrig import Client, Gone, Rig, traces

from inbounds.host import protocol, slots
from inbounds.host.protocol import Mechanism, Op, Phase

pytestmark = pytest.mark.alone  # hundreds of processes, and a bomb: others would wait for a turn

BOMB, NO_BOMB = "1", "0"


def _loaded(rig: Rig, client: Client, *, inside: bool, bomb: str = BOMB, count: int = 220) -> int:
    """Double forks, new sessions, stopped and deaf ones, and a fork bomb beside them; the slot's user.

    `inside`: in bubblewrap's namespaces, as a run's; else with nothing around it that would end with its first process.
    """
    assert client.open(processes=400).errno == 0
    uid = protocol.uid_of(client.slot)
    reading, writing = os.pipe()
    words, sources = rig.wrap(PYTHON, "-I", "-c", LOAD, bomb, str(count))
    argv = words if inside else (PYTHON, "-I", "-c", LOAD, bomb, str(count))
    reply, _ = client.jail(*argv, sources=tuple(sources) if inside else (), stdout=writing)
    os.close(writing)
    assert reply.errno == 0
    said = os.read(reading, 100)
    os.close(reading)
    assert said == b"ready", said
    rig.until(lambda: len(alive(uid)) >= count - 10, "the control: they live")
    return uid


def _processes_of(rig: Rig) -> dict[str, list[int]]:
    """The service's: the keeper, which is in a session of its own, and the others."""
    assert rig.process
    children = Path(f"/proc/{rig.process.pid}/task/{rig.process.pid}/children").read_text().split()
    keepers = [int(pid) for pid in children if os.getsid(int(pid)) == int(pid)]
    return {"keeper": keepers, "sessions": [int(pid) for pid in children if int(pid) not in keepers]}


def _without_keeper(rig: Rig) -> None:
    """Killed with everything that would clean up behind it, as a person with kill -9 does."""
    assert rig.process
    os.kill(rig.process.pid, signal.SIGSTOP)  # else it makes another one
    [keeper] = _processes_of(rig)["keeper"]
    os.kill(keeper, signal.SIGKILL)
    rig.kill()


@pytest.mark.req("E13", "F3", "E9")
def test_a_killed_service_leaves_no_process_without_any_restart(rig: Rig) -> None:
    """What nothing else would end: orphans without a namespace. A process that outlives the service does it."""
    client = rig.connect()
    uid = _loaded(rig, client, inside=False)
    assert len(_processes_of(rig)["keeper"]) == 1
    rig.kill()
    rig.until(lambda: not alive(uid), "the end of all of them")
    assert os.path.ismount(rig.paths.raw(client.slot)), "its supervisor takes the evidence from there"
    rig.start()
    assert traces(rig.paths) == {"mounts": [rig.paths.run], "loops": []}
    assert slots.load(rig.paths, client.slot).phase == Phase.KEPT  # type: ignore[union-attr]  # an agent was in it
    assert rig.connect().ask(Op.ATTACH, client.slot).errno == 0


@pytest.mark.req("E13", "E9")
def test_a_keeper_that_dies_has_a_successor(rig: Rig) -> None:
    [before] = _processes_of(rig)["keeper"]
    os.kill(before, signal.SIGTERM)
    time.sleep(0.2)
    assert _processes_of(rig)["keeper"] == [before], "it does not hear what ends a service"
    os.kill(before, signal.SIGKILL)

    def another() -> bool:
        now = _processes_of(rig)["keeper"]
        return len(now) == 1 and now != [before]

    rig.until(another, "another one")
    [keeper] = _processes_of(rig)["keeper"]
    rig.stop()
    assert until(lambda: not Path(f"/proc/{keeper}").exists(), 10), "it ends with an orderly end"


@pytest.mark.req("E13", "F3", "E9")
def test_with_its_keeper_killed_too_the_kernel_ends_every_jail(rig: Rig) -> None:
    """Each jail's first process dies with its session, and with it all that is in its namespace."""
    client = rig.connect()
    uid = _loaded(rig, client, inside=True)
    _without_keeper(rig)
    rig.until(lambda: not alive(uid), "the end of all of them")


@pytest.mark.req("E13", "E9", "E16")
def test_a_restart_ends_what_nobody_has_ended_whatever_its_deadline_was(rig: Rig) -> None:
    """No deadline is carried over a restart, since nothing lives behind one: near or far, it is killed at the start."""
    near, far = rig.connect(), rig.connect()
    users = [_loaded(rig, client, inside=False, bomb=NO_BOMB, count=40) for client in (near, far)]
    near.ask(Op.DEADLINE, deadline_ms=int(time.time() * 1000) + 60_000)
    _without_keeper(rig)
    time.sleep(1)
    assert all(alive(uid) for uid in users), "the control: without namespaces and keeper they live on"
    rig.start()
    assert [alive(uid) for uid in users] == [[], []], "they are dead before it answers anybody"
    assert [record.phase for record in slots.records(rig.paths).values()] == [Phase.KEPT, Phase.KEPT]
    assert traces(rig.paths) == {"mounts": [rig.paths.run], "loops": []}


# -- the packet filter is taken away -----------------------------------------------------------------------------------


def _in_that_network(rig: Rig, code: str) -> None:
    """Python in the service's network namespace, whose tables are no others'."""
    assert rig.process
    words = ["nsenter", f"--net=/proc/{rig.process.pid}/ns/net", sys.executable, "-c", code]
    subprocess.run(words, check=True, timeout=60, capture_output=True)


FLUSHED = "from inbounds.host import filter; filter.remove_all()"
OTHERS = "from inbounds.host import filter; filter.drop(0, 61180, table=b'inbounds-test'); filter.remove_all(table=b'inbounds-test')"


def _filtered(rig: Rig) -> Client:
    rig.start(network=True)
    client = rig.connect()
    if not client.ask(Op.HELLO).numbers["mechanisms"] & Mechanism.FILTER:
        pytest.skip("this kernel has no packet filter")
    assert client.open().numbers["mechanisms"] & Mechanism.FILTER
    return client


def _sleeping(rig: Rig, client: Client) -> int:
    argv, sources = rig.wrap("/bin/sleep", "600")
    reply, _ = client.jail(*argv, sources=tuple(sources))
    assert reply.errno == 0
    uid = protocol.uid_of(client.slot)
    rig.until(lambda: len(alive(uid)) >= 2, "the control: it lives")
    return uid


@pytest.mark.req("C4")
def test_a_packet_filter_that_is_flushed_ends_the_jails_at_once(idle: Rig) -> None:
    client = _filtered(idle)
    uid = _sleeping(idle, client)
    _in_that_network(idle, OTHERS)  # the control: what happens to other tables ends nothing
    time.sleep(0.5)
    assert client.ask(Op.STATE).errno == 0
    assert len(alive(uid)) >= 2
    began = time.monotonic()
    _in_that_network(idle, FLUSHED)
    idle.until(lambda: not alive(uid), "the jail's end")
    with pytest.raises(Gone):
        client.ask(Op.STATE)
    assert time.monotonic() - began < 30
    assert "taken its packet filter away" in idle.log.read_text()
    idle.until(lambda: slots.load(idle.paths, client.slot).phase == Phase.KEPT, "the slot's end")  # type: ignore[union-attr]  # it stays
    back = idle.connect()
    assert back.ask(Op.ATTACH, client.slot).numbers["mechanisms"] & Mechanism.FILTER, "made anew"


@pytest.mark.req("C4")
def test_no_jail_begins_without_the_packet_filter(idle: Rig) -> None:
    """Asked before each one, also where the session has not heard of the change yet."""
    client = _filtered(idle)
    [session] = _processes_of(idle)["sessions"]
    os.kill(session, signal.SIGSTOP)
    _in_that_network(idle, FLUSHED)
    request = protocol.pack_request(Op.JAIL, client.slot, inherited=4, sources=0, flags=0)
    null = os.open("/dev/null", os.O_RDWR)
    client.send(request, (null,) * 5)
    os.close(null)
    os.kill(session, signal.SIGCONT)
    try:
        answer = client.socket.recv(4096)
    except ConnectionError:
        answer = b""
    assert not answer or protocol.unpack_reply(Op.JAIL, answer).errno
    assert alive(protocol.uid_of(client.slot)) == []
    idle.until(lambda: slots.load(idle.paths, client.slot) is None, "the slot's end: no agent was ever in it")
