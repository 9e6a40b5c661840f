"""What a test session leaves on the machine: noted before it, compared behind it, and any difference fails it.

Looks only at what is named inbounds* or descends from this process; what stood there before is nobody's fault. Where
nothing tells whose a thing is and somebody else was at work here meanwhile, it is a warning. Knows no test.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

NAME = "inbounds"
MARK = "INBOUNDS_TEST_SESSION"  # inherited by what a test starts; sessions within a session append theirs
# Looked at, not written to; beside the temporary directory of this session.
PLACES = ("/tmp", "/run", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run/netns")  # noqa: S108 - see above
CGROUP_DEPTH = 4  # where a service manager delegates: /user.slice/user-N.slice/user@N.service/app.slice
GRACE_SECONDS = 3.0  # what was killed last is still going
LOOK_SECONDS = 10.0  # between two looks at who else is at work
PROCESS_FIELDS = 1 << 16  # bytes of a command line or an environment that are looked at
# Programs whose work leaves things named inbounds*: ours, and a test session, wherever they are started from.
WORKERS = re.compile(rb"(^|[\0/])(pytest|inbounds)(\0|$)|\0inbounds\.|/inbounds/|inbounds-host")
GROUP_OWNER = re.compile(rb"inbounds-(\d+)-.*")  # whose supervisor a group is of (sandbox/cgroup.py)
# They end with the process that started them, by design, and could not outlive it: held by its pidfd or by a pipe.
BOUND = re.compile(rb"/inbounds/sandbox/warden\.py\0|multiprocessing\.(resource_tracker|forkserver)")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that outlives processes; `path` where it is to be found, "" for what has none."""

    kind: str
    name: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from a later one of its number by when it started (clock ticks since boot)."""

    pid: int
    started: int
    parent: int
    command: bytes = field(compare=False)

    def __str__(self) -> str:
        shown = self.command.replace(b"\0", b" ").decode(errors="replace").strip()
        return f"process {self.pid} {shown[:200]!r}"  # somebody else's bytes, and this goes to a terminal


@dataclass(slots=True)
class Left:
    """What a comparison found: `ours` fail the session, `unknown` have nobody's name on them."""

    ours: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def things() -> set[Thing]:
    """Everything there is now that could be left over and costs next to nothing to look at; no nft table."""
    found = {Thing("user", name) for name in _accounts("/etc/passwd")}
    found |= {Thing("group", name) for name in _accounts("/etc/group")}
    for place in dict.fromkeys((tempfile.gettempdir(), *PLACES)):
        found |= {Thing("file", path, path) for path in _named(place)}
    for line in _text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        found.add(Thing("mount", f"{left.split()[4]} ({' '.join(right.split()[:2])})", left.split()[4]))
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        backing = _text(str(path)).strip()
        found.add(Thing("loop device", f"{path.parts[3]} on {backing}", backing))
    for kind in ("shm", "sem", "msg"):
        lines = [line.split() for line in _text(f"/proc/sysvipc/{kind}").splitlines()]
        if lines and "cuid" in lines[0]:
            uid, creator = lines[0].index("cuid"), lines[0].index("cpid") if "cpid" in lines[0] else -1
            for row in (row for row in lines[1:] if row[uid] == str(os.geteuid())):
                found.add(Thing(f"System V {kind}", f"{row[1]} of process {row[creator] if creator > 0 else '?'}"))
    return found | {Thing("cgroup", path, path) for path in _cgroups()}


def tables() -> set[Thing]:
    """Tables of the packet filter; nobody but root has or sees any."""
    tool = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or tool is None:
        return set()
    done = subprocess.run([tool, "-j", "list", "tables"], capture_output=True, timeout=30, check=False)
    if done.returncode != 0:  # a kernel without nftables
        return set()
    listed = [entry["table"] for entry in json.loads(done.stdout).get("nftables", []) if "table" in entry]
    return {Thing("nft table", f"{t['family']} {t['name']}") for t in listed if t["name"].startswith(NAME)}


def processes() -> dict[int, Process]:
    """Everything that runs, dead ones that nobody has waited for yet left out."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _text(f"/proc/{name}/stat")):
            fields = stat.rpartition(")")[2].split()
            if fields[0] not in "ZX":
                pid = int(name)
                found[pid] = Process(pid, int(fields[19]), int(fields[1]), _bytes(f"/proc/{name}/cmdline"))
    return found


class Session:
    """One session's note of what was there before, who is at work beside it, and what it makes itself."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.token = f"{self.pid}-{time.monotonic_ns():x}"
        self.made: dict[str, str] = {}
        self.appeared: dict[Thing, str] = {}
        self.others: set[str] = set()
        self.roots: set[str] = set()
        self.spent = 0.0
        self._looked = 0.0
        self._undo: list[Callable[[], None]] = []
        with self._timed():
            self.before = things() | tables()
            self.running = set(processes().values())

    def begin(self) -> None:
        """Mark what is started from here on, and note who makes temporary directories."""
        above = os.environ.get(MARK)
        os.environ[MARK] = f"{above}/{self.token}" if above else self.token
        real = tempfile.mkdtemp

        @wraps(real)
        def mkdtemp(*args: Any, **kwargs: Any) -> Any:
            path = real(*args, **kwargs)
            if os.path.basename(os.fsdecode(path)).startswith(NAME):
                self.made[os.path.abspath(os.fsdecode(path))] = _test()
            return path

        tempfile.mkdtemp = mkdtemp
        self._undo = [lambda: setattr(tempfile, "mkdtemp", real), lambda: _restore(MARK, above)]

    def end(self) -> None:
        """Take the marks off again."""
        while self._undo:
            self._undo.pop()()

    def look(self, during: str) -> None:
        """Between two files of tests: what is new belongs to `during`; and who else is at work?"""
        with self._timed():
            for thing in things() - self.before:
                self.appeared.setdefault(thing, during)
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self._others()

    def compare(self, roots: set[str]) -> Left:
        """What is left, once it had time to go; `roots` are directories of this session's own."""
        self.roots = {os.path.realpath(root) for root in roots} | set(self.made)
        until = time.monotonic() + GRACE_SECONDS
        while True:
            with self._timed():
                self._others()
                left = self._left()
            if not (left.ours or left.unknown) or time.monotonic() > until:
                return left
            time.sleep(0.1)

    def _left(self) -> Left:
        left = Left()
        now = processes()
        for one in (one for one in now.values() if one not in self.running):
            if why := self._why_ours(one, now):
                left.ours.append(f"{one}: {why}")
        for thing in sorted((things() | tables()) - self.before, key=str):
            if maker := self._maker(thing):
                left.ours.append(f"{thing}: {maker}")
            elif (NAME in thing.name or thing.kind.startswith("System V")) and not self._others_hold(thing, now):
                seen = self.appeared.get(thing)
                left.unknown.append(f"{thing}: {f'first seen behind {seen}' if seen else 'made by nobody knows whom'}")
        return left

    def _maker(self, thing: Thing) -> str:
        """Who of this session made it, or ""."""
        if thing.path and (root := self._root(thing.path)):
            return f"made in {self.made[root]}" if root in self.made else f"below {root}, which is this session's"
        if thing.kind == "cgroup" and os.path.basename(thing.path).startswith(f"{NAME}-{self.pid}-"):
            return "made by this very process"
        if thing.kind == "System V shm" and thing.name.endswith(f" of process {self.pid}"):
            return "made by this very process"
        return ""

    def _root(self, path: str) -> str:
        return next((r for r in sorted(self.roots) if path == r or path.startswith(f"{r}/")), "")

    def _why_ours(self, one: Process, now: dict[int, Process]) -> str:
        """Why a process counts as this session's, or ""; whose end is bound to this process's is none."""
        line = [one]
        while line[-1].pid != self.pid and line[-1].parent in now:
            line.append(now[line[-1].parent])
        if one.pid == self.pid or any(BOUND.search(step.command) for step in line):
            return ""
        if line[-1].pid == self.pid:
            return "a descendant of this process"
        if self.token.encode() in _bytes(f"/proc/{one.pid}/environ"):
            return f"started by this session ({_its_test(one.pid)})"
        for root in sorted(self.roots):
            if root.encode() in one.command or f"{_link(one.pid, 'cwd')}/".startswith(f"{root}/"):
                return f"works below {root}"
        if _link(one.pid, "ns/mnt") not in {"", _link(self.pid, "ns/mnt")}:
            mounts = _text(f"/proc/{one.pid}/mountinfo")
            return next((f"has mounts of {root}" for root in sorted(self.roots) if f" {root}" in mounts), "")
        return ""

    def _others(self) -> None:
        """Note programs of the kind that leave such things, and that are no part of this session."""
        now = processes()
        above, at = {self.pid}, self.pid
        while at in now:
            at = now[at].parent
            above.add(at)
        for one in now.values():
            if one.pid in above or not WORKERS.search(one.command) or self._descends(one, now):
                continue
            if self.token.encode() not in _bytes(f"/proc/{one.pid}/environ"):
                self.others.add(str(one))

    def _descends(self, one: Process, now: dict[int, Process]) -> bool:
        at = one
        while at.parent in now:
            at = now[at.parent]
            if at.pid == self.pid:
                return True
        return False

    def _others_hold(self, thing: Thing, now: dict[int, Process]) -> bool:
        """Whether somebody else's: another user's, or named on the command line of a process that is not ours."""
        if not thing.path:
            return False
        with contextlib.suppress(OSError):
            if os.geteuid() not in {0, os.lstat(thing.path).st_uid}:
                return True
        name = os.path.basename(thing.path).encode()
        owner = GROUP_OWNER.fullmatch(name) if thing.kind == "cgroup" else None
        if owner and (alive := now.get(int(owner[1]))) and not self._descends(alive, now):
            return True
        return any(name in one.command and not self._descends(one, now) for one in now.values())

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - started


class Leftovers:
    """The plugin: one Session around pytest's, and the verdict in its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = Session()
        self.session.begin()
        self.left = Left()
        self.file = ""

    def pytest_runtest_logfinish(self, location: tuple[str, int | None, str]) -> None:
        """Look once for each file of tests."""
        if location[0] != self.file:
            self.session.look(self.file or "the start")
            self.file = location[0]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Behind the last fixture: compare, and fail a session that passed so far."""
        factory = getattr(self.config, "_tmp_path_factory", None)
        base = getattr(factory, "_basetemp", None)  # asking would make one
        self.left = self.session.compare({str(base)} if base else set())
        self.session.end()
        failing = self.left.ours or (self.left.unknown and not self.session.others)
        if failing and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what is left, and what made it if that can be told."""
        say = terminalreporter.line
        if self.left.ours or self.left.unknown:
            terminalreporter.section("left on the machine")
        for what in self.left.ours:
            say(f"LEFT {what}", red=True)
        for what in self.left.unknown:
            if self.session.others:
                say(f"warning: {what}; may be somebody else's, who was at work here, too", yellow=True)
            else:
                say(f"LEFT {what}; nobody else was seen at work", red=True)
        for one in sorted(self.session.others)[:5] if self.left.unknown else ():
            say(f"  at work: {one}")

    def pytest_unconfigure(self) -> None:
        """Whatever ended the session: no mark of it stays in this process."""
        self.session.end()


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "no test").partition(" (")[0]


def _its_test(pid: int) -> str:
    """The test during which a process was started, as its environment tells."""
    entries = _bytes(f"/proc/{pid}/environ").split(b"\0")
    named = next((e for e in entries if e.startswith(b"PYTEST_CURRENT_TEST=")), b"=outside any test")
    return named.partition(b"=")[2].decode(errors="replace").partition(" (")[0]


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _accounts(path: str) -> Iterator[str]:
    return (name for line in _text(path).splitlines() if (name := line.partition(":")[0]).startswith(NAME))


def _named(place: str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(place) as entries:  # absent, or not to be listed by us
        yield from (entry.path for entry in entries if entry.name.startswith(NAME))


def _cgroups() -> Iterator[str]:
    todo = [("/sys/fs/cgroup", 0)]
    while todo:
        place, depth = todo.pop()
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.startswith(NAME):
                        yield entry.path
                    elif depth < CGROUP_DEPTH:
                        todo.append((entry.path, depth + 1))


def _bytes(path: str) -> bytes:
    """A file of the kernel's, or nothing: what it was about has gone, or is not ours to read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(PROCESS_FIELDS)
    except OSError:
        return b""


def _text(path: str) -> str:
    return _bytes(path).decode(errors="replace")


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
