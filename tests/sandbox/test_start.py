"""Jails started in advance, and jails that stand for further commands: as sealed, and with nothing left from before."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox import cgroup, jail, launch, start
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.jail import Jail, drop_spare, keep_spare
from inbounds.sandbox.spec import Bind, JailSpec, Listener

SECONDS = 30

# What a program could see of the jail that it is in, whichever way that was started.
SEEN = """
import os
print(sorted(os.listdir("/")))
print(sorted(line.split()[4] for line in open("/proc/self/mountinfo")))
print(sorted((line.split()[4], line.split()[5]) for line in open("/proc/self/mountinfo")))
print(sorted(os.listdir("/proc/self/fd")), os.environ, os.getcwd(), os.getuid())
print(open("/proc/self/status").read().split("NoNewPrivs")[1].split("Cpus_allowed")[0])
print(open("/work/file").read(), open("/home/agent/decoy").read(), oct(os.stat("/home/agent").st_mode))
print(os.statvfs("/tmp").f_blocks, os.statvfs("/home/agent").f_files)
"""


@pytest.fixture
def spares(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A spare is kept; "used" or why not, for each jail that could have had one."""
    said: list[str] = []
    real = jail._from_spare

    def noted(*arguments: object) -> Jail:
        try:
            made = real(*arguments)  # type: ignore[arg-type]  # passed on
        except BaseException as error:
            said.append(repr(error))
            raise
        said.append("used")
        return made

    monkeypatch.setattr(jail, "_from_spare", noted)
    monkeypatch.setattr(start, "LATER_SECONDS", 0.0)
    keep_spare(rig.identity)
    try:
        await_spare()
        yield said
    finally:
        drop_spare()


def await_spare() -> None:
    until = time.monotonic() + SECONDS
    while jail._spares is None or jail._spares._spare is None:
        assert time.monotonic() < until
        time.sleep(0.01)


def fields(rig: Rig) -> dict[str, object]:
    work = rig.scratch / "work"
    if not work.exists():
        rig.directory("work")
        (work / "file").write_text("shown")
        (work / "file").chmod(0o644)
        (rig.scratch / "decoy").write_text("bait")
        (rig.scratch / "decoy").chmod(0o644)
    return {
        "binds": (Bind(str(work), "/work", writable=True), Bind("/usr/share", "/opt/deep/share")),
        "decoys": {"decoy": str(rig.scratch / "decoy")},
        "listeners": (Listener("gateway", "tcp", 8100),),
        "files": {"config/x": b"y"},
    }


@pytest.mark.req("F10")
def test_a_jail_started_in_advance_is_the_same_jail(rig: Rig, spares: list[str]) -> None:
    early = rig.run(jail_python(), "-I", "-c", SEEN, **fields(rig))
    assert spares == ["used"]
    drop_spare()
    late = rig.run(jail_python(), "-I", "-c", SEEN, **fields(rig))
    assert spares == ["used"]
    assert early.lines == late.lines
    assert early.enforcement == late.enforcement
    assert "shown bait" in early.stdout


def test_a_spare_shows_nothing_of_the_host_before_its_task(rig: Rig, spares: list[str]) -> None:
    """Seen by the supervisor's side: what the waiting PID 1 has mounted is what every jail has, and no more."""
    assert jail._spares is not None
    layout, _ = jail._spares._spare or pytest.fail("no spare")
    places = [layout.argv[n + 2] for n, word in enumerate(layout.argv) if word in ("--bind", "--bind-fd")]
    assert places == []


def test_each_jail_has_a_spare_of_its_own(rig: Rig, spares: list[str]) -> None:
    pids = set()
    for _ in range(3):
        await_spare()
        pids.add(rig.spawn("true").pid)
    assert len(pids) == 3
    assert spares == ["used"] * 3


def test_a_dead_spare_is_not_taken(rig: Rig, spares: list[str]) -> None:
    assert jail._spares is not None
    _, waiting = jail._spares._spare or pytest.fail("no spare")
    signal.pidfd_send_signal(waiting.pidfd, signal.SIGKILL)
    assert start.ended(waiting.pidfd, SECONDS)
    assert rig.run("true").end.exit_code == 0
    os.kill(launch.launcher().pid, signal.SIGKILL)
    assert rig.run("true").end.exit_code == 0


def test_a_spare_that_cannot_be_given_its_binds_is_not_used(
    rig: Rig, spares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old kernel: the jail is started from nothing, as it was before there were spares."""

    def refuse(*_: object) -> list[int]:
        raise HostError("open_tree: Operation not permitted")

    monkeypatch.setattr(launch.Launcher, "clone", refuse)
    assert rig.run("cat", "/work/file", **fields(rig)).lines == ["shown"]
    assert len(spares) == 1
    assert "not permitted" in spares[0]


def test_a_bind_below_a_link_that_an_agent_left_is_refused(rig: Rig, spares: list[str]) -> None:
    work = rig.directory("tree")
    (work / "sub").symlink_to("/etc")
    secret = rig.directory("secret")
    binds = (Bind(str(work), "/work", writable=True), Bind(str(secret), "/work/sub"))
    with pytest.raises(HostError):
        rig.spawn("true", binds=binds)
    assert "ELOOP" in spares[0] or "symbolic" in spares[0] or "ended" in spares[0]


def test_a_source_that_is_a_link_is_refused(rig: Rig, spares: list[str]) -> None:
    (rig.scratch / "link").symlink_to("/etc")
    with pytest.raises(HostError, match="without symbolic links"):
        rig.spawn("true", binds=(Bind(str(rig.scratch / "link"), "/work"),))


def test_mounts_made_in_a_jail_do_not_reach_the_host(rig: Rig, spares: list[str]) -> None:
    """A bind below a bind: without private clones it would show on the host, too, where mounts are shared."""
    outer, inner = rig.directory("outer"), rig.directory("inner")
    (outer / "sub").mkdir()
    (inner / "file").write_text("inner")
    (inner / "file").chmod(0o644)
    binds = (Bind(str(outer), "/work"), Bind(str(inner), "/work/sub"))
    assert rig.run("cat", "/work/sub/file", binds=binds).lines == ["inner"]
    assert spares == ["used"]
    assert os.listdir(outer / "sub") == []


def test_nothing_of_a_spare_is_left(rig: Rig, spares: list[str]) -> None:
    rig.run("true", **fields(rig))
    drop_spare()
    rig.jails.clear()
    before = len(os.listdir("/proc/self/fd"))
    groups = _groups()
    for _ in range(3):
        keep_spare(rig.identity)
        await_spare()
        rig.run("true", **fields(rig))
        rig.jails.clear()
        drop_spare()
    assert spares == ["used"] * 4
    assert len(os.listdir("/proc/self/fd")) == before
    assert _groups() == groups


def _groups() -> list[str]:
    mine = f"{cgroup.PREFIX}{os.getpid()}-"
    return [name for base in cgroup._bases() for name in os.listdir(base) if name.startswith(mine)]


# -- standing jails


def standing(rig: Rig, *argv: str, **more: object) -> Jail:
    made = rig.spawn(*argv, role="coder", standing=True, **more)
    made.go()
    return made


def said(made: Jail) -> str:
    ended = made.wait(SECONDS)
    assert ended is not None
    assert ended.reason == "exited", ended
    own: Path = made.scratch  # type: ignore[attr-defined]  # the rig's own
    return (own / "stdout").read_text()


def test_a_standing_jail_takes_further_commands(rig: Rig) -> None:
    made = standing(rig, "sh", "-c", "echo one; echo kept > /tmp/file; exit 3")
    first = made.wait(SECONDS)
    assert first is not None
    assert (first.exit_code, said(made)) == (3, "one\n")
    made.run_again(("sh", "-c", "cat /tmp/file; pwd; echo $WHAT; echo err >&2"), {"WHAT": "two"}, "/tmp")
    assert said(made) == "kept\n/tmp\ntwo\n"
    assert (made.scratch / "stderr").read_text() == "err\n"  # type: ignore[attr-defined]  # the rig's own
    made.run_again(("sh", "-c", "kill -SEGV $$"), {}, "/")
    third = made.wait(SECONDS)
    assert third is not None
    assert third.signal == signal.SIGSEGV
    made.run_again(("no-such-program",), {}, "/")
    fourth = made.wait(SECONDS)
    assert fourth is not None
    assert fourth.reason == "failed"
    made.run_again(("true",), {}, "/")
    assert said(made) == ""
    assert made.kill().reason == "exited"
    with pytest.raises(HostError, match="has ended"):
        made.run_again(("true",), {}, "/")


def test_the_next_command_meets_no_process_of_the_former_one(rig: Rig) -> None:
    leave = (
        "import os,time\nfor _ in range(40):\n  if os.fork()==0:\n    os.setsid()\n    if os.fork()==0: time.sleep(600)"
    )
    made = standing(rig, jail_python(), "-I", "-c", leave)
    assert said(made) == ""
    made.run_again(("sh", "-c", "cd /proc; ls -d [0-9]*"), {}, "/")
    left = said(made).split()
    assert left[0] == "1"
    assert len(left) <= 3, left  # PID 1, the shell, ls


def test_each_command_has_a_session_seal_and_limits_of_its_own(rig: Rig) -> None:
    look = (
        "import os,resource;s=open('/proc/self/status').read();"
        "print(os.getsid(0)==os.getpid(), [l for l in s.splitlines() if l[:3] in ('Cap','Sec','NoN')],"
        "resource.getrlimit(resource.RLIMIT_NPROC), os.nice(0), sorted(os.listdir('/proc/self/fd')))\n"
        "for path in ('/etc/x', '/run/inbounds/unlisted/x'):\n"
        "  try: open(path,'w')\n"
        "  except OSError as e: print(e.errno)"
    )
    made = standing(rig, jail_python(), "-I", "-c", look)
    first = said(made)
    assert first.startswith("True")
    for _ in range(20):  # more than the layers that Landlock would put on one another
        made.run_again((jail_python(), "-I", "-c", look), {}, "/tmp")
        assert said(made) == first


@pytest.mark.req("E1")
def test_each_command_has_a_deadline(rig: Rig) -> None:
    made = standing(rig, "true", deadline_ms=700)
    assert said(made) == ""
    made.run_again(("sh", "-c", "trap '' TERM; sleep 60"), {}, "/")
    ended = made.wait(SECONDS)
    assert ended is not None
    assert ended.reason == "deadline"
    made.run_again(("echo", "on"), {}, "/")
    assert said(made) == "on\n"


def test_a_standing_jail_is_killed_as_any_other(rig: Rig) -> None:
    made = standing(rig, "true")
    assert said(made) == ""
    made.run_again(("sleep", "600"), {}, "/")
    assert made.wait(0.2) is None
    assert made.kill().reason == "killed"
    until = time.monotonic() + SECONDS
    while Path(f"/proc/{made.pid}").exists():  # dead, and about to be reaped
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_busy_jail_and_one_that_does_not_stand_take_no_command(rig: Rig) -> None:
    made = standing(rig, "sleep", "600")
    with pytest.raises(OperatorError, match="runs still"):
        made.run_again(("true",), {}, "/")
    other = rig.spawn("true")
    other.go()
    other.wait(SECONDS)
    with pytest.raises(OperatorError, match="no standing one"):
        other.run_again(("true",), {}, "/")


@pytest.mark.parametrize("role", ["tester", "reviewer", "builder", "test"])
def test_no_judge_has_a_standing_jail(role: str) -> None:
    JailSpec(role=role, argv=("true",)).check()
    JailSpec(role="coder", argv=("true",), standing=True).check()
    with pytest.raises(OperatorError, match="a standing jail for a judge"):
        JailSpec(role=role, argv=("true",), standing=True).check()


def test_a_standing_jail_works_from_a_spare(rig: Rig, spares: list[str]) -> None:
    made = standing(rig, "cat", "/work/file", **fields(rig))
    assert said(made) == "shown"
    made.run_again(("cat", "/home/agent/decoy"), {}, "/")
    assert said(made) == "bait"
    assert spares == ["used"]
