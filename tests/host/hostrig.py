"""A real host service over a temporary directory, clients of any user, and what a host looks like before and after.

Root only. Everything that a test made is removed at its end, whatever the test did.
"""

import contextlib
import errno
import grp
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inbounds.host import filter as packets
from inbounds.host import protocol, slots
from inbounds.host.protocol import NO_SLOT, Op, Reply
from inbounds.host.slots import Paths, recover
from inbounds.sandbox.host import bubblewrap

SECONDS = 60
OPERATOR, OTHER, STRANGER = 64_242, 64_243, 64_244  # users without accounts; the first two are of the rig's group
GROUP = grp.getgrgid(1).gr_name  # any group that every host has
MIB = 1 << 20

PROGRAM = """
import os, signal, sys
from inbounds.host.service import Service
from inbounds.host.slots import Paths
state, run, group, fatal, whole, lacks = sys.argv[1:]
if lacks:  # a host without this controller
    from inbounds.host import groups
    groups.KINDS[lacks] = ("none-such", *groups.KINDS[lacks][1:])
main = os.getpid()
def step(name):
    if name != fatal:
        return
    if whole == "whole":
        os.kill(main, signal.SIGKILL)
        signal.pause()
    if not os.path.exists(run + ".died"):  # the first process lives on and cleans up, in steps of the same names
        os.mkdir(run + ".died")
        os.kill(os.getpid(), signal.SIGKILL)
Service(Paths(state, run), group=group, step=step, kept=not fatal).run()
"""

# loopback is up there, so that the service can try its filter out
ALONE = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


def root_or_skip() -> None:
    if os.getuid() != 0:
        pytest.skip("the host service is root's: started as an ordinary user it can do nothing")


class Gone(Exception):
    """The service closed the connection."""


@contextlib.contextmanager
def as_user(uid: int, groups: list[int]) -> Iterator[None]:
    """What is connected meanwhile is connected by that user."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@dataclass
class Client:
    """One connection, spoken raw."""

    socket: socket.socket
    slot: int = NO_SLOT
    kept: list[int] = field(default_factory=list)

    def ask(self, op: Op, slot: int | None = None, fds: tuple[int, ...] = (), **numbers: int) -> Reply:
        return self.raw(op, protocol.pack_request(op, self.slot if slot is None else slot, **numbers), fds)

    def raw(self, op: Op, data: bytes, fds: tuple[int, ...] = ()) -> Reply:
        self.send(data, fds)
        try:
            answer, back, _, _ = socket.recv_fds(self.socket, 4096, 8)
        except ConnectionError as error:
            raise Gone from error
        self.kept += back
        if not answer:
            raise Gone
        return protocol.unpack_reply(op, answer)

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(self.socket, [data], list(fds))

    def open(self, **changed: int) -> Reply:
        asked = {
            "bytes": 16 * MIB,
            "inodes": 2048,
            "memory_bytes": 256 * MIB,
            "processes": 64,
            "cpu_percent": 100,
            "deadline_ms": int((time.time() + 600) * 1000),
            "flags": 0,
            "io_bytes_per_second": 0,
            **changed,
        }
        reply = self.raw(Op.OPEN, protocol.pack_request(Op.OPEN, NO_SLOT, **asked))
        if not reply.errno:
            self.slot = reply.slot
        return reply

    def jail(
        self, *argv: str, sources: tuple[int, ...] = (), stdout: int | None = None, stdin: int | None = None
    ) -> tuple[Reply, int]:
        """Start it; the answer, and the jail's pidfd (-1 where there is none)."""
        memory = os.memfd_create("argv")
        null = os.open("/dev/null", os.O_RDWR)
        try:
            os.write(memory, b"".join(os.fsencode(word) + b"\0" for word in argv))
            out = null if stdout is None else stdout
            inherited = (null if stdin is None else stdin, out, out, null)
            fds = (memory, *inherited, *sources)
            reply = self.ask(Op.JAIL, fds=fds, inherited=len(inherited), sources=len(sources), flags=0)
        finally:
            os.close(memory)
            os.close(null)
        return reply, self.kept[-1] if not reply.errno else -1

    def run(self, *argv: str, sources: tuple[int, ...] = ()) -> str:
        """Start it, wait for its end, and give what it wrote."""
        reading, writing = os.pipe()
        try:
            reply, _ = self.jail(*argv, sources=sources, stdout=writing)
        finally:
            os.close(writing)
        assert reply.errno == 0, errno.errorcode[reply.errno]
        with open(reading, "rb") as file:
            return drained(file.fileno())

    def path(self, path: str | Path) -> int:
        """A descriptor for a source, closed with the client."""
        self.kept.append(path_fd(path))
        return self.kept[-1]

    def let_go(self) -> None:
        """Close what came back, and the sources."""
        for fd in self.kept:
            os.close(fd)
        self.kept.clear()

    def close(self) -> None:
        self.socket.close()
        self.let_go()


def drained(fd: int) -> str:
    """All that comes through a pipe until its end."""
    said, until = b"", time.monotonic() + SECONDS
    while True:
        assert select.select([fd], [], [], max(0, until - time.monotonic()))[0], f"no end of {said!r}"
        part = os.read(fd, 65_536)
        if not part:
            return said.decode("utf-8", "replace")
        said += part


def path_fd(path: str | Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


class Rig:
    """The service, over directories of its own."""

    def __init__(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="inbounds-host-test-", dir="/var/tmp"))
        self.top.chmod(0o755)
        self.paths = Paths(str(self.top / "state"), str(self.top / "run"))
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []
        self.log = self.top / "log"

    def start(self, fatal: str = "", *, whole: bool = True, lacks: str = "", network: bool = False) -> None:
        """Start it and wait until it listens. `fatal`: the step at which it is killed, whole or the one process.

        `lacks`: a kind of ceiling for which it finds no controller. `network`: in a network namespace of its own.
        """
        os.makedirs(self.top, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.paths.socket)
        words = [self.paths.state, self.paths.run, GROUP, fatal, "whole" if whole else "one", lacks]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(ALONE if network else ()), sys.executable, "-c", PROGRAM, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        until = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError):
                probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                try:
                    probe.connect(self.paths.socket)
                    return
                finally:
                    probe.close()
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def connect(self, uid: int = OPERATOR, groups: tuple[int, ...] = (1,)) -> Client:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(SECONDS)
        with as_user(uid, list(groups)):
            made.connect(self.paths.socket)
        client = Client(made)
        self.clients.append(client)
        return client

    def view(self, client: Client) -> Path:
        return Path(protocol.view_of(client.slot, self.paths.run))

    def write(self, client: Client, name: str, text: str) -> None:
        """As the operator: nobody else, root neither, is a user whom the view's map knows."""
        with as_user(OPERATOR, []):
            (self.view(client) / name).write_text(text)

    def wrap(self, *argv: str, writable: int = 0) -> tuple[tuple[str, ...], list[int]]:
        """Bubblewrap's arguments around a program, and its first source; `writable` more stand at /work0, /work1, …"""
        binary = bubblewrap()
        own, sources = binary.path, []
        if binary.root:
            own = f"{protocol.STAGE}/0{binary.path.removeprefix(binary.root)}"
            sources.append(path_fd(binary.root))
        words = [
            own,
            "--unshare-all",
            "--die-with-parent",
            "--ro-bind",
            "/usr",
            "/usr",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                words += ["--symlink", f"usr/{name}", f"/{name}"]
        for index in range(writable):
            words += ["--bind", f"{protocol.STAGE}/{index + len(sources)}", f"/work{index}"]
        return (*words, "--", *argv), sources

    def until(self, wanted: object, what: str, seconds: float = SECONDS) -> None:
        """Wait until `wanted()` is true."""
        assert callable(wanted)
        end = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < end, f"{what} did not come; {self.log.read_text()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait until all its processes are gone."""
        if self.process:
            self.process.kill()
            self.process.wait(SECONDS)
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SECONDS)
            finally:
                self.kill()

    def hang_up(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def close(self) -> None:
        """Nothing of it is left."""
        self.hang_up()
        self.stop()
        end = time.monotonic() + SECONDS
        while problems := recover(self.paths, all_of_them=True):
            assert time.monotonic() < end, problems
            time.sleep(0.1)
        while os.path.ismount(self.paths.run):
            subprocess.run(["umount", "-l", self.paths.run], check=True)
        shutil.rmtree(self.top)
        # An installed service keeps the table until it is uninstalled. Nobody uninstalls this one; who comes next makes
        # the table anew, and where somebody has rules in it, it stays for the last to go.
        if not any(packets._rules(slot, packets.TABLE) for slot in range(protocol.SLOTS)):
            packets.remove_all()


def traces(paths: Paths | None = None) -> dict[str, list[str]]:
    """What inbounds has on this host, by kind; with `paths` only what a service over them can have mounted."""
    with open("/proc/self/mountinfo") as table:
        mounts = [line.split()[4] for line in table]
    loops = []
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError):
            loops.append(Path(f"/sys/block/{name}/loop/backing_file").read_text().strip())
    top = os.path.dirname(paths.state) if paths else "inbounds"
    return {
        "mounts": sorted(place for place in mounts if top in place),
        "loops": sorted(place for place in loops if top in place),
    }


def slot_traces(slot: int, paths: Paths) -> dict[str, list[str]]:
    """What there is of one slot of this service: its account, its groups. Another service may have the number by now."""
    with open("/etc/passwd") as users, open("/etc/group") as groups:
        lines = [line for line in [*users, *groups] if line.startswith(f"inbounds-run-{slot}:")]
    if len(lines) == 2 and paths.mark not in lines[0]:
        return NOTHING
    cgroups = [
        os.path.join(top, found)
        for top, directories, _ in os.walk("/sys/fs/cgroup")
        for found in directories
        if found == f"inbounds-slot-{slot}"
    ]
    rules = []
    with slots.without_filter():
        rules = [f"drop {held.uid}"] if (held := packets.present(slot)) else []
    return {"accounts": lines, "cgroups": cgroups, "rules": rules}


def gone(slot: int, paths: Paths) -> bool:
    """Whether nothing of the slot is left; waits, because another service may be taking the number just now."""
    until = time.monotonic() + SECONDS
    while slot_traces(slot, paths) != NOTHING and time.monotonic() < until:
        time.sleep(0.05)
    return slot_traces(slot, paths) == NOTHING


NOTHING: dict[str, list[str]] = {"accounts": [], "cgroups": [], "rules": []}
