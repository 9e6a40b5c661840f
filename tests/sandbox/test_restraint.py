"""Jails held back from outside: slowed down beside somebody else, and frozen while they fork, stop and wake each other."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jailrig import Rig, limits

from inbounds.contracts.errors import OperatorError
from inbounds.sandbox import cgroup, restraint
from inbounds.sandbox.census import Process, look, members, send, threads
from inbounds.sandbox.cgroup import PREFIX, Cgroup
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.jail import Jail
from inbounds.sandbox.restraint import NICE, Restraint

BUSY = "while True: pass"
# Processes that come and go all the time, none of them there for long but the two hundred that make them.
BOMB = """
import os, time
for _ in range(200):
    if os.fork() == 0:
        while True:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
print("made", flush=True)
time.sleep(600)
"""
# Whoever is stopped is woken by all the others, for as long as one of them runs.
WAKERS = """
import os, signal, time
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        while True:
            os.kill(-1, signal.SIGCONT)
print("made", flush=True)
time.sleep(600)
"""
THREADS = """
import ctypes, sys, threading, time
def spin():
    while True: pass
for _ in range(3):
    threading.Thread(target=spin).start()
print("made", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def python(rig: Rig, code: str) -> Jail:
    """A jail that runs `code` and has said "made"."""
    jail = rig.spawn(jail_python(), "-I", "-c", code, deadline_ms=120_000, limits=limits(processes=450))
    jail.go()
    until = time.monotonic() + 60
    while b"made" not in (jail.scratch / "stdout").read_bytes():  # type: ignore[attr-defined]  # the rig's own
        assert time.monotonic() < until
        assert jail.wait(0) is None
        time.sleep(0.02)
    return jail


def family(jail: Jail) -> list[Process]:
    init = look(jail.pid)
    return members(init) if init else []


def ticks(pid: int) -> int:
    """CPU time of a process so far, all its threads, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def switches(jail: Jail) -> dict[int, str]:
    """How often each thread of a jail has been given a CPU: nothing can execute without that."""
    found = {}
    for process in family(jail):
        for task in threads(process):
            try:
                found[task.pid] = Path(f"/proc/{process.pid}/task/{task.pid}/schedstat").read_text()
            except OSError:
                found[task.pid] = "gone"
    return found


def still(jail: Jail) -> bool:
    before = switches(jail)
    time.sleep(0.4)
    return switches(jail) == before


def groups() -> list[str]:
    """Control groups of ours, made by this process."""
    found = [base for base in cgroup._bases() if os.path.isdir(base)]
    return [name for base in found for name in os.listdir(base) if name.startswith(f"{PREFIX}{os.getpid()}-")]


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How jails are frozen in this test; a host without groups for us can only stop."""
    wanted = str(request.param)
    if wanted == "SIGSTOP":
        monkeypatch.setattr(Cgroup, "make", classmethod(lambda *_, **__: None))
    elif (made := Cgroup.make("try")) is None:
        pytest.skip("this host gives this user no control group (version 2) of its own")
    else:
        assert made.remove()
    return wanted


BOTH = pytest.mark.parametrize("way", ["cgroup.freeze", "SIGSTOP"], indirect=True)


# -- freeze


@pytest.mark.alone
@BOTH
def test_two_hundred_forking_processes_are_frozen_at_once(rig: Rig, way: str) -> None:
    jail = python(rig, BOMB)
    assert not still(jail), "the control: they run"
    began = time.monotonic()
    assert jail.freeze() == way
    took = time.monotonic() - began
    assert still(jail)
    assert len(family(jail)) >= 200
    assert took < restraint.FREEZE_SECONDS
    print(f"{way}: {took * 1000:.0f} ms for {len(family(jail))} processes")
    assert jail.freeze() == way, "asked twice, it stays so"
    assert jail.kill().reason == "killed", "the frozen can be killed"
    assert not groups()


@BOTH
def test_threads_without_their_first_one_are_frozen_too(rig: Rig, way: str) -> None:
    jail = python(rig, THREADS)
    time.sleep(0.2)
    [leader] = [process for process in family(jail) if process.pid != jail.pid]
    assert (leader.state, leader.runs, leader.ended) == ("Z", False, False), "the control: dead at first sight"
    assert not still(jail)
    assert jail.freeze() == way
    assert still(jail)


@BOTH
def test_who_wakes_the_stopped_does_not_get_away(rig: Rig, way: str) -> None:
    jail = python(rig, WAKERS)
    how = jail.freeze()
    assert how in {way, "killed"}
    assert still(jail)
    assert (not family(jail)) == (how == "killed")


def test_who_is_outside_the_group_is_taken_in_and_frozen(rig: Rig) -> None:
    jail = python(rig, "import os\nos.fork()\nprint('made', flush=True)\n" + BUSY)
    if (group := jail._group) is None:
        pytest.skip("this host gives this user no control group (version 2) of its own")
    [first, second] = [process.pid for process in family(jail) if process.pid != jail.pid]
    Cgroup(str(Path(group.path).parent)).take(second)
    assert (group.holds(first), group.holds(second)) == (True, False)
    assert jail.freeze() == "cgroup.freeze"
    assert still(jail)
    assert group.holds(second)


def test_what_can_be_frozen_in_no_way_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    jail = python(rig, "print('made', flush=True)\n" + BUSY)
    monkeypatch.setattr(Restraint, "_settles", lambda *_: False)
    assert jail.freeze() == "killed"
    assert not family(jail)
    assert not groups()


def test_a_group_that_lets_nobody_in_leaves_the_signal(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = rig.scratch / "not-a-group"

    def make(_: type, name: str, *, cpu: bool = False) -> Cgroup:
        bad.mkdir(exist_ok=True)
        return Cgroup(str(bad))

    monkeypatch.setattr(Cgroup, "make", classmethod(make))
    jail = python(rig, "print('made', flush=True)\n" + BUSY)
    assert jail.freeze() == "SIGSTOP"
    assert still(jail)
    assert not bad.exists()


def test_a_jail_that_waits_or_has_ended(rig: Rig) -> None:
    ended = rig.spawn("true")
    ended.go()
    assert ended.wait(10) is not None
    assert ended.freeze() == "ended"
    assert ended.slow(50) == "ended"
    waiting = rig.spawn("sleep", "60")
    assert waiting.freeze() in {"cgroup.freeze", "SIGSTOP"}
    waiting.go()
    time.sleep(0.3)
    assert len(family(waiting)) == 1, "what was frozen before its go does not begin"
    assert waiting.kill().reason == "killed"
    assert not groups()


FREEZER = """
import sys
from pathlib import Path
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import JailSpec
jail = spawn(JailSpec(role="test", argv=("sleep", "300"), cwd="/"), identity=identity("x"), scratch=Path(sys.argv[1]))
jail.go()
print(jail.pid, jail.freeze(), flush=True)
sys.stdin.read()
"""


def test_a_frozen_jail_dies_with_its_supervisor_and_its_group_goes(rig: Rig) -> None:
    scratch = rig.scratch / "freezer"
    scratch.mkdir()
    argv = [sys.executable, "-c", FREEZER, str(scratch)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as freezer:
        assert freezer.stdout is not None
        pid, how = freezer.stdout.readline().split()
        init = look(int(pid))
        assert init is not None
        made = _left_by(freezer.pid)  # while it lives: once it is dead, any other supervisor may remove it, too
        freezer.kill()
    until = time.monotonic() + 20
    while any(not process.ended for process in members(init)):
        assert time.monotonic() < until
        time.sleep(0.02)
    if how != "cgroup.freeze":
        pytest.skip("this host gives this user no control group of its own: nothing could be left behind")
    assert made, "the control: there is a group to be left behind"
    while any(Cgroup(path).processes() for path in _left_by(freezer.pid)):  # bubblewrap ends behind its jail
        assert time.monotonic() < until
        time.sleep(0.02)
    cgroup.clean()
    assert not _left_by(freezer.pid)


def test_who_has_a_dead_supervisors_number_does_not_keep_its_group() -> None:
    if (mine := Cgroup.make("try")) is None:
        pytest.skip("this host gives this user no control group (version 2) of its own")
    former = Path(mine.path).with_name(f"{PREFIX}{os.getpid()}-1-try")
    former.mkdir()
    try:
        cgroup.clean()
        assert not former.exists()
        assert Path(mine.path).exists(), "the control: its own is kept"
    finally:
        mine.remove()
        if former.exists():
            former.rmdir()


def _left_by(pid: int) -> list[str]:
    found = [base for base in cgroup._bases() if os.path.isdir(base)]
    return [f"{base}/{name}" for base in found for name in os.listdir(base) if name.startswith(f"{PREFIX}{pid}-")]


# -- slow-down


@contextmanager
def busy_outside(cpu: int) -> Iterator[int]:
    """A busy process of the same nice as a jail's, in a session of its own, on one CPU; its pid."""

    code = f"import os; os.nice(5); os.sched_setaffinity(0, {{{cpu}}})\n" + BUSY
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def share(inside: int, outside: int, seconds: float = 2.0) -> float:
    """How much of the CPU time that both got was the first one's."""
    before = (ticks(inside), ticks(outside))
    time.sleep(seconds)
    got = (ticks(inside) - before[0], ticks(outside) - before[1])
    assert sum(got), "neither got any"
    return got[0] / sum(got)


def test_a_slowed_jail_leaves_the_cpu_to_others(rig: Rig) -> None:
    cpu = min(os.sched_getaffinity(0))
    jail = python(rig, "print('made', flush=True)\n" + BUSY)
    [inside] = [process.pid for process in family(jail) if process.pid != jail.pid]
    os.sched_setaffinity(inside, {cpu})
    with busy_outside(cpu) as outside:
        fair = share(inside, outside)
        how = jail.slow(20)
        slowed = share(inside, outside)
    print(f"{how}: {fair:.2f} of the CPU before, {slowed:.2f} after")
    assert how in {"nice 19", "cpu.max 20%"}
    assert 0.3 < fair < 0.7, "the control: equals share"
    assert slowed < 0.5 * fair


def test_what_a_slowed_jail_starts_is_slow_and_its_new_sessions_at_the_next_call(rig: Rig) -> None:
    code = """
import os, time
print("made", flush=True)
time.sleep(1)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
time.sleep(600)
"""
    jail = python(rig, code)
    how = jail.slow(50)
    if how != "nice 19":
        pytest.skip(f"this host does it by {how}, which holds for all that is inside")
    while len(family(jail)) < 5:
        time.sleep(0.05)
    time.sleep(0.2)
    born = [process for process in family(jail) if process.pid != jail.pid]
    assert {process.nice for process in born} == {NICE}, "nice is inherited"
    assert jail.slow(50) == "nice 19"
    weights = [
        told for process in born if (told := (Path(f"/proc/{process.pid}/autogroup"))).exists() and told.read_text()
    ]
    assert {restraint.AUTOGROUP.match(told.read_text())[2] for told in weights} <= {"19"}  # type: ignore[index]  # read above
    init = look(jail.pid)
    assert init is not None
    assert init.nice < NICE, "PID 1 is ours, and watches over limits"


def test_a_jail_cannot_hurry_again(rig: Rig) -> None:
    code = """
import os, time
print("made", flush=True)
time.sleep(1.5)
for what in (os.PRIO_PROCESS, os.PRIO_PGRP, os.PRIO_USER):
    try:
        os.setpriority(what, 0, 0)
    except OSError:
        pass
print(os.getpriority(os.PRIO_PROCESS, 0))
"""
    jail = python(rig, code)
    if (how := jail.slow(50)) != "nice 19":
        pytest.skip(f"this host does it by {how}, which has no way back from inside")
    assert rig.end(jail).stdout.split() == ["made", "19"]


@pytest.mark.parametrize("percent", [0, -1, 100])
def test_a_slow_down_is_between_one_and_ninety_nine(rig: Rig, percent: int) -> None:
    with pytest.raises(OperatorError, match="slowed down"):
        rig.spawn("true").slow(percent)


def test_cpu_max_where_the_host_delegates_it(rig: Rig) -> None:
    made = Cgroup.make("try", cpu=True)
    if made is None:
        pytest.skip("this host delegates no cpu controller (version 2) to this user")
    assert made.remove()
    jail = python(rig, "print('made', flush=True)\n" + BUSY)
    assert jail.slow(10) == "cpu.max 10%"
    [inside] = [process.pid for process in family(jail) if process.pid != jail.pid]
    before, cpus = ticks(inside), len(os.sched_getaffinity(0))
    time.sleep(3)
    assert (ticks(inside) - before) / 300 < 0.15 * cpus
    assert jail.freeze() == "cgroup.freeze"
    assert jail.kill().reason == "killed"
    assert not groups()


# -- the census


def test_a_signal_reaches_exactly_who_was_meant() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        seen = look(process.pid)
        assert seen is not None
        stranger = Process(seen.pid, seen.parent, seen.session, seen.state, seen.nice, seen.threads, seen.started + 1)
        send(stranger, signal.SIGKILL)
        time.sleep(0.1)
        assert process.poll() is None, "another process had this pid before"
        assert members(stranger) == []
        assert [p.pid for p in members(seen)] == [process.pid]
        send(seen, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    send(seen, signal.SIGKILL)  # gone: nothing happens


def test_a_freeze_of_a_jail_that_is_ending_takes_no_time(rig: Rig) -> None:
    for _ in range(5):
        jail = python(rig, "print('made', flush=True)\n" + BUSY)
        ending = threading.Thread(target=jail.kill)
        ending.start()
        began = time.monotonic()
        assert jail.freeze() in {"ended", "cgroup.freeze", "SIGSTOP"}
        assert time.monotonic() - began < 1.5
        ending.join(20)
    assert not groups()


def test_a_jail_that_ends_while_it_is_frozen_has_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group goes with it, in the middle of a look: that is no freeze that failed, and nobody is to be killed."""
    jail = python(rig, "print('made', flush=True)\n" + BUSY)
    killed = []

    def look_too_late(hold: Restraint) -> int:
        jail.kill()
        raise OSError(errno.ENODEV, "the group was removed")

    monkeypatch.setattr(Restraint, "_at_large_frozen", look_too_late)
    monkeypatch.setattr(Restraint, "_at_large_stopped", look_too_late)
    hold = jail._restraint
    assert hold is not None
    assert hold.freeze(lambda: killed.append(1)) == "ended"
    assert not killed
    assert not groups()
