"""Space that no name leads to: what the members of a real jail hold is seen, or that something is not."""

import os
import time
from pathlib import Path

import pytest
from jailrig import PRELUDE, Rig, limits

from inbounds.sandbox.census import look
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.jail import Jail
from inbounds.sandbox.spec import Bind
from inbounds.sandbox.unlinked import Held, Room, held

MIB = 1 << 20
BEGIN = """
import mmap, socket, time
ends = os.pipe()
def done():
    os.write(ends[1], b"x")
def awaited():
    os.read(ends[0], 1)
def deleted(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, bytes(8 << 20))
    os.fsync(fd)  # until then nothing is allocated
    os.unlink(name)
    return fd
"""
END = """
print("ready", flush=True)
time.sleep(60)
"""
WAYS = {
    "open": "fd = deleted('a')",
    "twice": "fd = deleted('a'); other = os.dup(fd); os.fork()",
    "in a child": "os.fork() or (deleted('a'), done(), time.sleep(60))\nawaited()",
    "in a session": "os.fork() or (os.setsid(), os.fork() or (deleted('a'), done(), time.sleep(60)), os._exit(0))\nawaited()",
}


def _ready(rig: Rig, code: str) -> tuple[Jail, str]:
    """A jail in which this has been done, over a directory of the real disk."""
    place = rig.directory(f"work-{rig.count}")
    jail = rig.spawn(
        jail_python(), "-I", "-c", PRELUDE + BEGIN + code + END,
        cwd="/work", binds=(Bind(str(place), "/work", writable=True),), limits=limits(file_bytes=64 * MIB),
    )  # fmt: skip
    jail.go()
    out: Path = jail.scratch / "stdout"  # type: ignore[attr-defined]  # the rig's
    until = time.monotonic() + 30
    while b"ready" not in out.read_bytes():
        assert time.monotonic() < until, (out.read_bytes(), (out.parent / "stderr").read_bytes())
        assert jail.wait(0) is None, (out.parent / "stderr").read_bytes()
        time.sleep(0.02)
    return jail, str(place)


def _held(jail: Jail, place: str) -> Held:
    init = look(jail.pid)
    assert init is not None
    return held([init], place)


@pytest.mark.req("E7")
@pytest.mark.parametrize("way", WAYS)
def test_a_deleted_file_that_is_open_is_counted_once(rig: Rig, way: str) -> None:
    jail, place = _ready(rig, WAYS[way])
    assert os.listdir(place) == []
    found = _held(jail, place)
    assert 8 * MIB <= found.bytes < 9 * MIB
    assert not found.unseen


@pytest.mark.req("E7")
def test_who_is_not_to_be_looked_at_by_his_own_user_is_no_less_told(rig: Rig) -> None:
    jail, place = _ready(rig, "libc.prctl(4, 0, 0, 0, 0); fd = deleted('a')")  # PR_SET_DUMPABLE
    found = _held(jail, place)
    assert found.unseen if os.getuid() else found.bytes >= 8 * MIB


def test_control_what_has_a_name_or_is_elsewhere_is_not_counted(rig: Rig) -> None:
    code = "fd = os.open('kept', os.O_RDWR | os.O_CREAT); os.write(fd, bytes(1 << 20)); os.chdir('/tmp'); other = deleted('b')\n"
    code += "m = mmap.mmap(-1, 1 << 20)\na, b = socket.socketpair()"
    jail, place = _ready(rig, code)
    assert os.listdir(place) == ["kept"]
    assert _held(jail, place) == Held(0, unseen=False)


@pytest.mark.req("E7")
@pytest.mark.parametrize(
    "code",
    [
        "fd = deleted('a'); m = mmap.mmap(fd, 4096); os.close(fd)",
        "fd = deleted('a'); a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [fd]); os.close(fd)",
    ],
    ids=["mapped", "in a socket's queue"],
)
def test_what_cannot_be_measured_is_said_to_be_unseen(rig: Rig, code: str) -> None:
    # Python's mmap keeps a descriptor of its own, which is closed here as C code would
    jail, place = _ready(
        rig,
        code
        + "\nfor n in os.listdir('/proc/self/fd'):\n    outcome(os.close, int(n)) if 'm' in globals() and int(n) > 2 else 0\n",
    )
    found = _held(jail, place)
    assert found.unseen
    assert found.bytes == 0


def test_who_has_ended_holds_nothing(rig: Rig) -> None:
    jail, place = _ready(rig, WAYS["open"])
    init = look(jail.pid)
    assert init is not None
    jail.kill()
    assert held([init], place) == Held(0, unseen=False)


def test_room_is_measured_from_the_most_there_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.statvfs(tmp_path)

    class Told:
        f_frsize = real.f_frsize
        f_bfree = 1000

    monkeypatch.setattr(os, "statvfs", lambda _: Told)
    room, seen = Room(str(tmp_path)), []
    for free in (1000, 900, 1500, 1400):
        Told.f_bfree = free
        seen.append(room.fallen() // real.f_frsize)
    assert seen == [0, 100, 0, 100]
