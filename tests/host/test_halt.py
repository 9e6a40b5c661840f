"""What is stopped and killed from another connection than the slot's own; whose slot, and that nothing begins behind it."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from groups_rig import LOAD, PYTHON, alive
from hostrig import OPERATOR, OTHER, Client, Rig

from inbounds.host import protocol, slots
from inbounds.host.protocol import Mechanism, Op, Phase


def _loaded(rig: Rig, client: Client, bomb: int = 1, count: int = 60) -> int:
    """A jail without namespaces, so that nothing but the service ends its orphans; its pidfd, once all are born."""
    reading, writing = os.pipe()
    reply, pidfd = client.jail(PYTHON, "-I", "-c", LOAD, str(bomb), str(count), stdout=writing)
    os.close(writing)
    assert reply.errno == 0, errno.errorcode[reply.errno]
    said = os.read(reading, 100)
    os.close(reading)
    assert said == b"ready", said
    uid = protocol.uid_of(client.slot)
    rig.until(lambda: len(alive(uid)) > count // 2, "the control: they live")
    return pidfd


def _ticks(uid: int) -> int:
    """What the user's processes have used of the processors so far."""
    used = 0
    for pid in alive(uid):
        try:
            words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        used += int(words[11]) + int(words[12])
    return used


@pytest.mark.req("E13", "F3")
@pytest.mark.parametrize("user", [OPERATOR, 0], ids=["owner", "root"])
def test_a_slot_is_frozen_then_killed_from_outside_while_its_holder_hangs(rig: Rig, user: int) -> None:
    """The holder asks nothing any more, as a stopped supervisor does not; its connection stands."""
    holder, outside = rig.connect(), rig.connect(user)
    opened = holder.open(processes=200)
    uid = opened.numbers["uid"]
    pidfd = _loaded(rig, holder)
    frozen = outside.ask(Op.HALT, holder.slot, kill=0)
    assert frozen.errno == 0
    assert frozen.numbers["processes"] > 60
    if opened.numbers["mechanisms"] & Mechanism.FREEZE:
        assert frozen.numbers["frozen"] == 1
        before = _ticks(uid)
        time.sleep(0.3)
        assert _ticks(uid) == before, "somebody of them executed"
    assert outside.ask(Op.HALT, holder.slot, kill=1).numbers["processes"] == 0
    assert alive(uid) == []
    del pidfd
    # and its holder, should it wake up, starts nothing, and is heard in all else
    reply, _ = holder.jail("/usr/bin/true")
    assert reply.errno == errno.EBUSY
    assert holder.ask(Op.STATE).numbers["processes"] == 0
    assert holder.ask(Op.KILL, pid=0).numbers["survivors"] == 0
    reply, _ = holder.jail("/usr/bin/true")
    assert reply.errno == errno.EBUSY
    # until it is taken up anew
    assert holder.ask(Op.DETACH).errno == 0
    assert holder.ask(Op.ATTACH).errno == 0
    argv, sources = rig.wrap("/bin/echo", "again")
    assert holder.run(*argv, sources=tuple(sources)) == "again\n"


@pytest.mark.req("F4")
def test_another_users_slot_is_never_halted(rig: Rig) -> None:
    holder = rig.connect()
    holder.open()
    _loaded(rig, holder, bomb=0, count=10)
    uid = protocol.uid_of(holder.slot)
    there = alive(uid)
    for kill in (0, 1):
        assert rig.connect(OTHER).ask(Op.HALT, holder.slot, kill=kill).errno == errno.EPERM
    assert sorted(alive(uid)) == sorted(there)
    argv, sources = rig.wrap("/bin/echo", "untouched")
    assert holder.run(*argv, sources=tuple(sources)) == "untouched\n"
    assert rig.connect().ask(Op.HALT, holder.slot, kill=2).errno == errno.EINVAL


def test_a_kept_slot_has_nothing_to_halt(rig: Rig) -> None:
    holder = rig.connect()
    holder.open()
    assert holder.ask(Op.DETACH).errno == 0
    halted = rig.connect().ask(Op.HALT, holder.slot, kill=1)
    assert (halted.errno, halted.numbers["processes"]) == (0, 0)
    assert holder.ask(Op.ATTACH).errno == 0
    argv, sources = rig.wrap("/bin/echo", "as before")
    assert holder.run(*argv, sources=tuple(sources)) == "as before\n"


@pytest.mark.req("E10", "E13")
def test_jails_that_begin_while_it_is_killed_from_outside_have_no_survivor(rig: Rig) -> None:
    """Each of them may not have joined its groups yet, where no kill of a group finds it."""
    argv, sources = rig.wrap("/bin/sleep", "600")
    for _ in range(8):
        holder, outside = rig.connect(), rig.connect()
        holder.open()
        uid = protocol.uid_of(holder.slot)
        asked = protocol.pack_request(Op.HALT, holder.slot, kill=1)
        started = [holder.jail(*argv, sources=tuple(sources)) for _ in range(2)]
        assert all(reply.errno == 0 for reply, _ in started), "the control: they begin"
        outside.send(asked)
        reply, _ = holder.jail(*argv, sources=tuple(sources))
        assert reply.errno in (0, errno.EBUSY)
        assert protocol.unpack_reply(Op.HALT, outside.socket.recv(4096)).numbers["processes"] == 0
        rig.until(lambda uid=uid: not alive(uid), "their end", 20)
        # who joined its groups just then ends by itself, root still and with nothing executed
        rig.until(lambda holder=holder: holder.ask(Op.STATE).numbers["processes"] == 0, "an empty group", 20)
        assert holder.ask(Op.DISCARD).errno == 0


def test_a_session_that_is_stopped_is_halted_over(rig: Rig) -> None:
    """The slot's own process in the service may hang, too."""
    holder = rig.connect()
    holder.open()
    uid = protocol.uid_of(holder.slot)
    assert rig.process
    children = Path(f"/proc/{rig.process.pid}/task/{rig.process.pid}/children")
    before = set(children.read_text().split())
    outside = rig.connect()
    assert outside.ask(Op.HELLO).errno == 0
    _loaded(rig, holder)
    for pid in before:
        os.kill(int(pid), signal.SIGSTOP)
    try:
        assert outside.ask(Op.HALT, holder.slot, kill=1).numbers["processes"] == 0
        assert alive(uid) == []
    finally:
        for pid in before:
            os.kill(int(pid), signal.SIGCONT)


def test_the_client_halts_slots_by_their_numbers_all_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from inbounds.sandbox import hardened

    monkeypatch.setenv(hardened.PLACE, rig.paths.socket)
    holders = [rig.connect() for _ in range(3)]
    for holder in holders:
        holder.open()
        _loaded(rig, holder, bomb=0, count=10)
    numbers = [holder.slot for holder in holders]
    assert hardened.halt([*numbers, 79]) == dict.fromkeys(numbers, "cgroup.freeze")  # root's, here
    assert hardened.halt(numbers, kill=True) == dict.fromkeys(numbers, "killed")
    assert all(alive(protocol.uid_of(number)) == [] for number in numbers)
    rig.stop()
    assert hardened.halt(numbers) == {}


# -- what a user has


def test_a_user_is_told_of_its_own_slots_alone(rig: Rig) -> None:
    mine, others = rig.connect(), rig.connect(OTHER)
    mine.open()
    others.open()

    def listed(uid: int) -> tuple[list[int], list[int]]:
        n = rig.connect(uid).ask(Op.SLOTS, protocol.NO_SLOT).numbers
        members = protocol.members_of
        return members(n["low"], n["high"]), members(n["kept_low"], n["kept_high"])

    assert listed(OPERATOR) == ([mine.slot], [])
    assert mine.ask(Op.DETACH).errno == 0
    assert listed(OPERATOR) == ([mine.slot], [mine.slot])
    assert listed(OTHER) == ([others.slot], [])
    assert listed(0) == ([], [])


def test_a_set_of_slots_stands_in_two_integers() -> None:
    for wanted in ([], [0], [63, 64], [0, 5, 63, 64, 79], list(range(80))):
        bits = sum(1 << number for number in wanted)
        assert protocol.members_of(bits & protocol.LOW, bits >> protocol.LOW_BITS) == wanted


@pytest.mark.req("F4")
def test_a_slot_in_which_no_agent_ever_was_goes_with_its_connection(rig: Rig) -> None:
    """Its client died right behind OPEN: no run knows of it, and nothing in it is anybody's work."""
    client, other = rig.connect(), rig.connect()
    client.open()
    other.open()
    rig.write(client, "work", "the operator's own")
    argv, sources = rig.wrap("/bin/echo", "an agent")
    assert other.run(*argv, sources=tuple(sources)) == "an agent\n"
    client.close()
    other.close()
    rig.until(lambda: slots.load(rig.paths, client.slot) is None, "its end")
    rig.until(lambda: slots.load(rig.paths, other.slot).phase == Phase.KEPT, "the control")  # type: ignore[union-attr]  # it stays
