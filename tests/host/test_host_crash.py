"""SIGKILL at every step of a slot's life, of the whole service and of one session: what is left is undone or adopted."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hostrig import Client, Gone, Rig, gone, slot_traces, traces

from inbounds.host import protocol, slots
from inbounds.host.protocol import Op, Phase

OPENING = ("claimed", "account", "group", "filter", "image", "mounted")  # no client has seen the slot
CLOSING = ("closing", "killed", "unmounted", "kept")
DISCARDING = ("discarding", "destroyed", "removed", "discarded")


def _asked(function: Callable[[], object]) -> None:
    with contextlib.suppress(Gone, OSError):
        function()


def _opened(rig: Rig) -> Client:
    """A slot that holds something, closed in order."""
    client = rig.connect()
    assert client.open().errno == 0
    rig.write(client, "work", "kept")
    assert client.ask(Op.DETACH).errno == 0
    return client


def _again(rig: Rig, *, whole: bool) -> None:
    """Behind the kill: a restart, or the first process's own cleaning up."""
    assert rig.process
    if whole:
        rig.process.wait(60)
        rig.start()
    rig.until(
        lambda: all(record.phase == Phase.KEPT for record in slots.records(rig.paths).values()), "an end of all steps"
    )


def _nothing_left(rig: Rig, number: int) -> None:
    assert slots.records(rig.paths) == {}
    assert gone(number, rig.paths)
    rig.until(lambda: traces(rig.paths) == {"mounts": [rig.paths.run], "loops": []}, "unmounted volumes")
    assert os.listdir(f"{rig.paths.state}/slots") in ([], [str(number)])
    client = rig.connect()
    assert client.open().errno == 0  # and it works on
    assert client.ask(Op.DISCARD).errno == 0


def _adopted(rig: Rig, number: int) -> None:
    there = slot_traces(number, rig.paths)
    assert len(there["accounts"]) == 2
    assert there["cgroups"] == []
    assert traces(rig.paths)["mounts"] == [rig.paths.run]
    client = rig.connect()
    assert client.ask(Op.ATTACH, number).errno == 0
    client.slot = number
    assert (Path(protocol.view_of(number, rig.paths.run)) / "work").read_text() == "kept"
    assert client.ask(Op.DISCARD).errno == 0
    assert gone(number, rig.paths)


@pytest.mark.parametrize("whole", [True, False], ids=["service", "session"])
@pytest.mark.parametrize("step", OPENING)
def test_killed_while_opening_nothing_is_left(idle: Rig, step: str, whole: bool) -> None:
    idle.start(step, whole=whole)
    client = idle.connect()
    _asked(client.open)
    number = next(iter(slots.records(idle.paths)), None)
    _again(idle, whole=whole)
    _nothing_left(idle, 0 if number is None else number)


@pytest.mark.parametrize("whole", [True, False], ids=["service", "session"])
@pytest.mark.parametrize("step", ["group", "filter", "mounted", "open", *CLOSING])
def test_killed_while_attaching_or_closing_the_image_is_adopted(idle: Rig, step: str, whole: bool) -> None:
    idle.start()
    number = _opened(idle).slot
    idle.stop()
    idle.start(step, whole=whole)
    client = idle.connect()
    client.slot = number
    _asked(lambda: client.ask(Op.ATTACH))
    _asked(lambda: client.ask(Op.DETACH))
    _again(idle, whole=whole)
    idle.stop()
    idle.start()
    _adopted(idle, number)


@pytest.mark.parametrize("whole", [True, False], ids=["service", "session"])
@pytest.mark.parametrize("step", DISCARDING)
def test_killed_while_discarding_it_is_discarded(idle: Rig, step: str, whole: bool) -> None:
    idle.start()
    number = _opened(idle).slot
    idle.stop()
    idle.start(step, whole=whole)
    _asked(lambda: idle.connect().ask(Op.DISCARD, number))
    _again(idle, whole=whole)
    idle.stop()
    idle.start()
    _nothing_left(idle, number)


@pytest.mark.req("E9")
@pytest.mark.parametrize("whole", [True, False], ids=["service", "session"])
def test_killed_with_a_jail_the_jail_dies(idle: Rig, whole: bool) -> None:
    """No cleaning up is needed for that: the kernel ends the jail with the process that started it."""
    idle.start("jail", whole=whole)
    client = idle.connect()
    assert client.open().errno == 0
    argv, sources = idle.wrap("/bin/sleep", "600")
    _asked(lambda: client.jail(*argv, sources=tuple(sources)))
    uid = protocol.uid_of(client.slot)
    from inbounds.host import accounts

    idle.until(lambda: accounts.leftovers(uid) == [], "the jail's end", 20)
    _again(idle, whole=whole)
    assert slots.load(idle.paths, client.slot).phase == Phase.KEPT  # type: ignore[union-attr]  # it stays


def test_a_restart_itself_can_be_killed_again_and_again(idle: Rig) -> None:
    idle.start("closing")
    client = idle.connect()
    assert client.open().errno == 0
    idle.write(client, "work", "kept")
    _asked(lambda: client.ask(Op.DETACH))
    for step in ("killed", "unmounted", "kept"):
        assert idle.process
        idle.process.wait(60)
        with pytest.raises(AssertionError):
            idle.start(step)
    idle.start()
    _adopted(idle, client.slot)
