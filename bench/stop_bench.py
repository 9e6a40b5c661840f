"""How fast a thousand processes are frozen and killed to the last one, against what the kernel alone takes.

`python bench/stop_bench.py [--rounds N] [--processes N] [--json FILE]`. Hardened (as root): a slot's group against one
bare cgroup.kill. Rootless: a real jail against killing PID 1 of a bare namespace. The same load in the same interpreter
(a larger one takes longer to end, whoever kills it), rounds interleaved, in one run. The loads are double forks, new
sessions, stopped and deaf processes, without and with an active fork bomb.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE

from inbounds.host.groups import Group, mechanisms
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import Jail, spawn
from inbounds.sandbox.restraint import CGROUP_FREEZE, KILLED
from inbounds.sandbox.spec import JailLimits, JailSpec

PROCESSES = 1_000  # what the requirement names
SPARE = 100  # what a fork bomb has beside them
SLOT = 79
USER = 61_193  # nobody's; and those behind it, because the host's init takes a while to bury a thousand orphans
USERS = itertools.count(USER + 1)
READY_SECONDS_MAX = 120
BAR_FROZEN_MS = 50
BAR_RATIO = 1.5
MEMORY = 12 << 30  # a thousand interpreters, before they become something smaller

LOAD = """
import gc, os, signal, sys, time
gc.freeze()
bomb, count = int(sys.argv[1]), int(sys.argv[2])
def sleeper(kind):
    if kind == "double" and os.fork():
        os._exit(0)
    if kind in ("session", "double"):
        os.setsid()
    if kind == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1000)
kinds = ("double", "session", "stopped", "deaf", "plain")
for i in range(count):
    kind = kinds[i % len(kinds)]
    child = os.fork()
    if not child:
        sleeper(kind)
    if kind == "double":
        os.waitpid(child, 0)
    if kind == "stopped":
        os.kill(child, signal.SIGSTOP)
os.write(1, b"ready")
while bomb:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
while True:
    time.sleep(1000)
"""


def python() -> str:
    """An interpreter that an ordinary user may execute: the one that runs this may be root's alone."""
    return shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable


def taken(action: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1_000


def alive(uid: int) -> int:
    """Processes of this user that may execute still; the load never ends, those on their way to state Z do at once."""
    time.sleep(0.5)
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                text = file.read()
                found += f"\nUid:\t{uid}\t" in text and "\nState:\tZ" not in text
    return found


@contextlib.contextmanager
def grouped(bomb: bool, count: int) -> Iterator[Group]:
    """A slot's group with the load in it; nothing is left of it."""
    group = Group.make(SLOT, memory=MEMORY, swap=0, processes=count + SPARE, cpu_percent=100_000)
    fds = group.join_fds()

    def join() -> None:
        for fd in fds:
            os.write(fd, b"0")
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)

    argv = [python(), "-I", "-c", LOAD, str(int(bomb)), str(count)]
    load = subprocess.Popen(argv, preexec_fn=join, stdout=PIPE, cwd="/")  # noqa: PLW1509 - no threads here
    try:
        for fd in fds:
            os.close(fd)
        wait_for_load(load)
        yield group
    finally:
        left = group.kill()
        load.wait()
        assert load.stdout
        load.stdout.close()
        if left or not group.remove():
            raise SystemExit(f"{left} processes of the bench are left in {group.unified}")


def wait_for_load(load: "subprocess.Popen[bytes]") -> None:
    """Until the thousand are there, and a moment more for the bomb."""
    assert load.stdout
    if not select.select([load.stdout], [], [], READY_SECONDS_MAX)[0] or load.stdout.read(5) != b"ready":
        raise SystemExit("the load did not come up")
    time.sleep(0.2)


def bare_cgroup(bomb: bool, count: int) -> dict[str, float]:
    """One write into cgroup.kill, and waiting until the kernel says that the group is empty."""
    with grouped(bomb, count) as group, open(f"{group.unified}/cgroup.events", "rb", buffering=0) as events:
        waiting = select.poll()
        waiting.register(events, select.POLLPRI)

        def kill() -> None:
            Path(group.unified, "cgroup.kill").write_text("1", encoding="ascii")
            while b"populated 0" not in events.read(4096):
                waiting.poll(1_000)
                events.seek(0)

        return {"bare kill": taken(kill)}


def hardened(bomb: bool, count: int) -> dict[str, float]:
    """A slot's stop: freeze, (evidence would be here,) kill, nobody left."""
    with grouped(bomb, count) as group:
        frozen: list[bool] = []
        first = taken(lambda: frozen.append(group.freeze(10)))
        if not frozen[0] or group.count() < count:
            raise SystemExit(f"not frozen, or only {group.count()} processes")
        left: list[int] = []
        second = taken(lambda: left.append(group.kill()))
        if left[0] or alive(USER):
            raise SystemExit(f"{left[0]} survivors by our count, {alive(USER)} by another")
    with grouped(bomb, count) as group:
        direct = taken(lambda: left.append(group.kill()))
        if left[1] or alive(USER):
            raise SystemExit(f"{left[1]} survivors by our count, {alive(USER)} by another")
    return {"freeze": first, "kill when frozen": second, "freeze and kill": first + second, "kill when running": direct}


def bare_namespace(bomb: bool, count: int) -> dict[str, float]:
    """SIGKILL for PID 1 of an unshared PID namespace, and waiting for its end: the kernel ends all others before."""
    argv = ["unshare", "--user", "--pid", "--fork", python(), "-I", "-c", LOAD, str(int(bomb)), str(count)]
    user = next(USERS)
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []
    ceiling = count + SPARE

    def bound() -> None:
        os.nice(JailLimits().nice)  # as a jail's processes are
        resource.setrlimit(resource.RLIMIT_NPROC, (ceiling, ceiling))

    argv = [*drop, *argv]
    # unshare complains when its child is killed
    outer = subprocess.Popen(argv, stdout=PIPE, stderr=DEVNULL, preexec_fn=bound, cwd="/")  # noqa: PLW1509 - no threads
    try:
        wait_for_load(outer)
        init = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        pidfd = os.pidfd_open(init)
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)

        def kill() -> None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            waiting.poll()

        spent = taken(kill)
        os.close(pidfd)
    finally:
        with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
            for pid in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        outer.wait(60)
        assert outer.stdout
        outer.stdout.close()
    return {"bare kill": spent}


@contextlib.contextmanager
def jailed(bomb: bool, count: int) -> Iterator[Jail]:
    """A real jail with the load in it, the same program as the bare namespace runs; nothing is left of it."""
    scratch = Path(tempfile.mkdtemp(prefix="inbounds-stop-bench-"))
    try:
        limits = JailLimits(processes=count + SPARE, memory_bytes=MEMORY)
        argv = (python(), "-I", "-c", LOAD, str(int(bomb)), str(count))
        spec = JailSpec(role="bench", argv=argv, cwd="/tmp", limits=limits)  # noqa: S108 - the jail's own
        jail = spawn(spec, identity=identity(str(scratch)), scratch=scratch)
        try:
            jail.go()
            until = time.monotonic() + READY_SECONDS_MAX
            while (scratch / "stdout").read_bytes() != b"ready":
                if time.monotonic() > until or jail.wait(0):
                    raise SystemExit(f"the load did not come up: {(scratch / 'stderr').read_text()} {jail.wait(0)}")
                time.sleep(0.05)
            time.sleep(0.2)
            yield jail
        finally:
            jail.kill()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def rootless(bomb: bool, count: int) -> dict[str, float]:
    """A jail killed as a stop kills it; and frozen before, where this host has a control group for us."""
    with jailed(bomb, count) as jail:
        found = {"kill": taken(jail.kill)}
    with jailed(bomb, count) as jail:
        how: list[str] = []
        first = taken(lambda: how.append(jail.freeze()))
        if how == [KILLED]:
            raise SystemExit("a jail could not be frozen")
        if how == [CGROUP_FREEZE]:
            second = taken(jail.kill)
            found |= {"freeze": first, "kill when frozen": second, "freeze and kill": first + second}
    return found


def measured(rounds: int, count: int) -> list[dict[str, object]]:
    """One row for each mode and load."""
    pairs = [("rootless", bare_namespace, rootless)]
    if os.geteuid() == 0 and (told := mechanisms()) and told["freeze"] == told["kill"] == "enforced":
        pairs.insert(0, ("hardened", bare_cgroup, hardened))
    else:
        print("hardened: not measured, needs root and cgroup version 2 for freeze and kill")
    rows: list[dict[str, object]] = []
    for mode, bare, ours in pairs:
        for bomb in (False, True):
            each = [bare(bomb, count) | ours(bomb, count) for _ in range(rounds)]
            median = {name: statistics.median(one[name] for one in each) for name in each[0]}
            rows.append({"mode": mode, "bomb": bomb, "median_ms": median, "rounds_ms": each})
    return rows


def main() -> int:
    """Print the table; 1 where a bar is not met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(
        f"{asked.processes} processes, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {platform.release()}"
    )
    met = True
    rows = measured(asked.rounds, asked.processes)
    for row in rows:
        print(f"{row['mode']}, {'an active fork bomb' if row['bomb'] else 'no bomb'}: medians of {asked.rounds}, ms")
        median = row["median_ms"]
        assert isinstance(median, dict)
        for name, ms in median.items():
            print(f"  {name:20}{ms:9.1f}   {ms / median['bare kill']:5.2f} x bare")
        frozen = median.get("freeze", 0.0)
        worst = max(ms for name, ms in median.items() if name.startswith("kill")) / median["bare kill"]
        holds = frozen <= BAR_FROZEN_MS and worst <= BAR_RATIO
        met = met and holds
        print(f"  frozen below {BAR_FROZEN_MS} ms, none left within {BAR_RATIO} x: {'met' if holds else 'NOT met'}")
    if asked.json:
        told = {"processes": asked.processes, "rounds": asked.rounds, "kernel": platform.release(), "rows": rows}
        asked.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
