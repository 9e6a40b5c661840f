"""A slot that is slowed down: its share of the processors really falls and comes back, or all of it yields instead."""

import os
import time
from pathlib import Path

import pytest
from hostrig import OPERATOR, Client, Rig, as_user

from inbounds.host import protocol
from inbounds.host.protocol import Mechanism, Op
from inbounds.sandbox.hardened import Slot, SlotLimits

SPIN = "while :; do :; done"
TICKS = os.sysconf("SC_CLK_TCK")
WINDOW = 1.5


def _spinning(rig: Rig, client: Client, count: int = 2) -> None:
    argv, sources = rig.wrap(
        "/bin/sh", "-c", f"for i in {' '.join('x' * count)}; do (setsid sh -c '{SPIN}') & done; wait"
    )
    reply, _ = client.jail(*argv, sources=tuple(sources))
    assert reply.errno == 0


def _processes(uid: int) -> dict[int, tuple[int, int]]:
    """The slot's processes: ticks used, niceness."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if f"\nUid:\t{uid}\t" not in (place / "status").read_text(errors="replace"):
                    continue
                words = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            found[int(place.name)] = int(words[11]) + int(words[12]), int(words[16])
    return found


def _share(uid: int) -> float:
    """Percent of one CPU that the slot's processes use, over a while."""
    before, began = _processes(uid), time.monotonic()
    time.sleep(WINDOW)
    after = _processes(uid)
    used = sum(ticks - before.get(pid, (0, 0))[0] for pid, (ticks, _) in after.items())
    return used / TICKS / (time.monotonic() - began) * 100


@pytest.mark.req("E9", "F7")
def test_a_slowed_slots_share_of_the_processors_falls_and_comes_back(rig: Rig) -> None:
    client = rig.connect()
    opened = client.open(cpu_percent=150)
    if not opened.numbers["mechanisms"] & Mechanism.CPU:
        pytest.skip("this host has no cpu controller; what happens then is another test's")
    uid = opened.numbers["uid"]
    _spinning(rig, client)
    rig.until(lambda: _share(uid) > 15, "the control: work at full speed")
    assert client.ask(Op.SLOW, cpu_percent=4).numbers["cpu_percent"] == 4
    assert _share(uid) < 8
    # whatever is asked next, it gets no more than it has
    assert client.ask(Op.SLOW, cpu_percent=90).numbers["cpu_percent"] == 4
    assert client.ask(Op.SLOW, cpu_percent=2).numbers["cpu_percent"] == 2
    assert _share(uid) < 6
    assert client.ask(Op.SLOW, cpu_percent=0).numbers["cpu_percent"] == 150
    rig.until(lambda: _share(uid) > 15, "its share again")
    assert client.ask(Op.SLOW, cpu_percent=5_000).numbers["cpu_percent"] == 150


@pytest.mark.req("E9")
def test_a_slot_attached_again_has_the_ceiling_that_it_was_opened_with(rig: Rig) -> None:
    client = rig.connect()
    if not client.open(cpu_percent=120).numbers["mechanisms"] & Mechanism.CPU:
        pytest.skip("this host has no cpu controller")
    assert client.ask(Op.SLOW, cpu_percent=3).numbers["cpu_percent"] == 3
    assert client.ask(Op.DETACH).errno == 0
    assert client.ask(Op.ATTACH).errno == 0
    assert client.ask(Op.SLOW, cpu_percent=100_000).numbers["cpu_percent"] == 120


@pytest.mark.req("E9")
def test_without_a_controller_all_of_it_yields_and_the_answer_says_so(idle: Rig) -> None:
    idle.start(lacks="cpu")
    client = idle.connect()
    opened = client.open()
    uid = opened.numbers["uid"]
    assert not opened.numbers["mechanisms"] & Mechanism.CPU
    _spinning(idle, client)
    idle.until(lambda: len(_processes(uid)) >= 5, "its processes")
    assert {nice for _, nice in _processes(uid).values()} == {0}, "the control"
    assert client.ask(Op.SLOW, cpu_percent=10).numbers["cpu_percent"] == 0
    assert {nice for _, nice in _processes(uid).values()} == {19}
    assert client.ask(Op.SLOW, cpu_percent=0).numbers["cpu_percent"] == 0
    assert {nice for _, nice in _processes(uid).values()} == {19}
    assert client.ask(Op.STATE).numbers["processes"] >= 5  # nobody was hurt


@pytest.mark.req("E9")
@pytest.mark.parametrize("lacks", ["", "cpu"])
def test_the_client_says_what_was_done(idle: Rig, lacks: str) -> None:
    idle.start(lacks=lacks)
    limits = SlotLimits(
        bytes=16 << 20, inodes=2048, memory_bytes=256 << 20, processes=64, cpu_percent=150,
        deadline_ms=int((time.time() + 600) * 1000),
    )  # fmt: skip
    with as_user(OPERATOR, [1]):
        slot = Slot.open(limits, idle.paths.socket)
    try:
        has = slot.bits & Mechanism.CPU
        assert not (lacks and has)
        cpus = len(os.sched_getaffinity(0))
        if has:
            assert slot.slow(10) == f"slot {slot.number}: at most {10 * cpus}% of one CPU"
            assert slot.slow(0) == f"slot {slot.number}: at most 150% of one CPU"
        else:
            assert slot.slow(10) == "nice 19: this host has no ceiling of processors"
            assert slot.slow(0) == "niceness is not given back"
        assert protocol.uid_of(slot.number) == slot.uid
    finally:
        slot.discard()
