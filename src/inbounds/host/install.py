"""Install, uninstall, status: a root-owned copy of this package, the operators' group, a unit or a process.

Runs as root out of whatever the operator installed, once; from then on only the copy runs. Standard library only.
"""

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inbounds.host import accounts, handles, protocol, slots
from inbounds.host import filter as packets
from inbounds.host.protocol import Mechanism, Op, Phase
from inbounds.host.service import GROUP, KEEPER, KEPT_CAPABILITIES, SERVICE
from inbounds.host.slots import Paths

LIBRARY = "/usr/local/lib/inbounds-host"
UNIT_NAME = "inbounds-host.service"
PYTHON_LEAST = (3, 11)
KERNEL_LEAST = (5, 15)  # id-mapped ext4
TOOLS = ("useradd", "userdel", "groupadd", "groupdel", "usermod", "mkfs.ext4")
ANSWER_SECONDS = 60.0  # undoing what a crash left may take long
STOP_SECONDS = 150.0

# No file-system protection of systemd's: each of them makes a mount namespace, and the views would stand in that.
# Address families are what a jail's own filter allows, since jails inherit this one. OOMPolicy: a jail at its memory
# ceiling is no reason to stop the service.
UNIT = """# {mark}
[Unit]
Description=inbounds host service: hardened jails for coding agents
After=local-fs.target

[Service]
ExecStart={python} -I -S -B {library} {state} {run} {group}
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec={stop}
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
SystemCallArchitectures=native
LimitCORE=0
LimitNOFILE=4096
UMask=0022

[Install]
WantedBy=multi-user.target
"""
START = '"""Starts the copy below this directory."""\n\nimport sys\n\nfrom inbounds.host.__main__ import main\n\n'
START += "sys.exit(main(sys.argv[1:]))\n"


class CannotError(Exception):
    """What stands in the way, what would be right, what to type."""

    def __init__(self, found: str, *, expected: str = "", fix: str = "") -> None:
        """Three parts, for each surface to lay out."""
        self.found, self.expected, self.fix = found, expected, fix
        super().__init__(found)


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything goes; tests have their own."""

    paths: Paths = field(default_factory=Paths)
    library: str = LIBRARY
    units: str = "/etc/systemd/system"
    group: str = GROUP
    systemd: bool = field(default_factory=lambda: os.path.isdir("/run/systemd/system"))  # sd_booted(3)

    @property
    def unit(self) -> str:
        """The unit's file."""
        return f"{self.units}/{UNIT_NAME}"


# -- install -----------------------------------------------------------------------------------------------------------


def install(places: Places, operators: list[str], *, force: bool = False) -> dict[str, Any]:
    """Make this host able to run hardened; what `status` says then. Repeatable. CannotError, OSError."""
    missing = [name for name in TOOLS if not any(os.access(f"{place}/{name}", os.X_OK) for place in accounts.TOOLS)]
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if missing:
        raise CannotError(f"this host has no {', '.join(missing)}", fix="apt install passwd e2fsprogs")
    if release < KERNEL_LEAST:
        raise CannotError(f"Linux {os.uname().release}", expected="5.15 or newer, for id-mapped volumes")
    python = interpreter()
    check_parents(places.library)
    accounts_of = {name: _account(name) for name in operators}
    new = not _same_copy(places.library)
    if new and running(places) and (live := occupied(places, Phase.OPEN)) and not force:
        raise CannotError(
            f"{len(live)} slots are in use by runs, which a new version would end",
            fix="inbounds stop --all, then again; or --force",
        )
    if not _group(places.group):
        accounts.tool("groupadd", "--system", places.group)
    for name in accounts_of:
        if name not in _group(places.group)[0].gr_mem:
            accounts.tool("usermod", "--append", "--groups", places.group, name)
    if new:
        stop(places)
        _copy(places.library)
    start(places, python)
    return status(places)


def interpreter() -> str:
    """A Python that only root can change. CannotError where there is none."""
    why = []
    candidates = ["/usr/bin/python3", *(f"/usr/bin/python3.{minor}" for minor in range(PYTHON_LEAST[1], 20))]
    for path in filter(os.path.exists, candidates):
        ask = "import os,sys;print(*sys.version_info[:2],os.__file__)"
        try:
            check_custody(os.path.realpath(path))
            words = subprocess.run(
                [os.path.realpath(path), "-I", "-S", "-c", ask], capture_output=True, timeout=30, check=True, env={}
            ).stdout.split()
            check_custody(os.fsdecode(words[2]))
        except (CannotError, OSError, subprocess.SubprocessError, IndexError) as error:
            why.append(f"{path}: {error}")
            continue
        if (int(words[0]), int(words[1])) >= PYTHON_LEAST:
            return os.path.realpath(path)
        why.append(f"{path} is {words[0].decode()}.{words[1].decode()}")
    raise CannotError(
        "; ".join(why) or "there is no /usr/bin/python3",
        expected="Python 3.11, root's alone",
        fix="apt install python3",
    )


def check_custody(path: str) -> None:
    """CannotError where anybody but root may change the file, or replace it or a directory above it."""
    if os.path.realpath(path) != path:
        raise CannotError(f"{path} leads through a symbolic link", expected="the real path")
    while True:
        about = os.lstat(path)
        if about.st_uid != 0 or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CannotError(
                f"{path} is of user {about.st_uid}, mode {stat.S_IMODE(about.st_mode):o}",
                expected="root's, and writable by nobody else",
                fix=f"chown root {path} && chmod go-w {path}",
            )
        if path == "/":
            return
        path = os.path.dirname(path)


def check_parents(library: str) -> None:
    """CannotError where the copy would not be root's alone, or something else is in its place."""
    check_custody(os.path.dirname(library))
    if os.path.lexists(library):
        check_custody(library)
        if not os.path.isfile(f"{library}/inbounds/host/protocol.py"):
            raise CannotError(f"{library} is there and not ours", fix=f"mv {library} elsewhere")


def _account(name: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise CannotError(f"there is no user {name}", expected="an account of this host") from None
    if protocol.FIRST_UID <= account.pw_uid < protocol.FIRST_UID + protocol.SLOTS:
        raise CannotError(f"{name} has the number of a slot's user", expected="a person's account")
    return account


def _group(name: str) -> list[grp.struct_group]:
    try:
        return [grp.getgrnam(name)]
    except KeyError:
        return []


def _sources() -> Iterator[tuple[str, bytes]]:
    """What the copy consists of: name below it, content."""
    yield "__main__.py", START.encode()
    yield "inbounds/__init__.py", b""
    here = os.path.dirname(os.path.abspath(__file__))
    for name in sorted(os.listdir(here)):
        if name.endswith(".py"):
            with open(f"{here}/{name}", "rb") as file:
                yield f"inbounds/host/{name}", file.read()


def digest() -> str:
    """Of this package's own sources; `status` compares it with the copy's."""
    return _digest(_sources())


def _digest(files: Iterator[tuple[str, bytes]]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _installed(library: str) -> Iterator[tuple[str, bytes]]:
    for directory, _, names in os.walk(library):
        for name in names:
            with open(f"{directory}/{name}", "rb") as file:
                yield os.path.relpath(f"{directory}/{name}", library), file.read()


def _same_copy(library: str) -> bool:
    return os.path.isdir(library) and _digest(_installed(library)) == digest()


def _copy(library: str) -> None:
    """The new copy in place of the old one: whole, or not at all."""
    new, old = f"{library}.new", f"{library}.old"
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    before = os.umask(0o022)
    try:
        for name, content in _sources():
            path = f"{new}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(content)
    finally:
        os.umask(before)
    if os.path.lexists(library):
        os.rename(library, old)
    os.rename(new, library)
    shutil.rmtree(old, ignore_errors=True)


# -- the process -------------------------------------------------------------------------------------------------------


def running(places: Places) -> int:
    """The service's pid; 0 where none runs."""
    try:
        if not slots.is_held(places.paths, SERVICE):
            return 0
        with open(places.paths.pid, encoding="ascii") as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0


def start(places: Places, python: str) -> None:
    """Have it run, and wait until it answers. CannotError where it does not."""
    if places.systemd:
        names = [f"CAP_{name.upper()}" for name in KEPT_CAPABILITIES]
        paths, words = places.paths, {"python": python, "library": places.library, "group": places.group}
        words |= {"state": paths.state, "run": paths.run, "mark": "Written by: inbounds host install"}
        unit = UNIT.format(**words, stop=int(STOP_SECONDS), capabilities=" ".join(names))
        with open(places.unit, "w", encoding="ascii") as file:
            file.write(unit)
        accounts.tool("systemctl", "daemon-reload")
        accounts.tool("systemctl", "enable", "--now", UNIT_NAME)
    elif not running(places):
        words_of = [places.paths.state, places.paths.run, places.group]
        done = subprocess.run(
            [python, "-I", "-S", "-B", places.library, "--daemon", *words_of],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": ":".join(accounts.TOOLS)},
            check=False,
        )
        if done.returncode:
            raise CannotError(f"the service did not start: {done.returncode}")
    until = time.monotonic() + ANSWER_SECONDS
    while hello(places) is None:
        if time.monotonic() > until:
            log = "journalctl -u inbounds-host" if places.systemd else f"cat {places.paths.state}/log"
            raise CannotError(f"the service did not answer in {ANSWER_SECONDS:.0f} s", fix=log)
        time.sleep(0.05)


def stop(places: Places) -> None:
    """No service runs. What it left in the middle stays for `recover`."""
    if places.systemd and os.path.exists(places.unit):
        accounts.tool("systemctl", "stop", UNIT_NAME)
    if pid := running(places):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if running(places) == pid:  # still: the number was not given to somebody else before the descriptor
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    _wait_for(lambda: not running(places), STOP_SECONDS)
                    if running(places) == pid:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    _wait_for(lambda: not running(places) and not _kept(places), STOP_SECONDS)


def _kept(places: Places) -> bool:
    """Whether who outlives the service cleans up behind it still."""
    return os.path.isdir(places.paths.state) and slots.is_held(places.paths, KEEPER)


def _wait_for(done: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.05)


def hello(places: Places) -> Mechanism | None:
    """What the running service can give; None where none answers this user."""
    reply = _ask(places, Op.HELLO)
    return None if reply is None else Mechanism(reply.numbers["mechanisms"])


def _ask(places: Places, op: Op, slot: int = protocol.NO_SLOT) -> protocol.Reply | None:
    """What the running service answers this user; None where it does not, or refuses."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as connection:
        try:
            connection.settimeout(10)
            connection.connect(places.paths.socket)
            connection.send(protocol.pack_request(op, slot))
            reply = protocol.unpack_reply(op, connection.recv(protocol.MESSAGE_BYTES + 1))
        except (OSError, protocol.ProtocolError):
            return None
    return None if reply.errno else reply


# -- uninstall ---------------------------------------------------------------------------------------------------------


def occupied(places: Places, *phases: Phase) -> list[int]:
    """Slots in one of these phases."""
    return [number for number, record in slots.records(places.paths).items() if record.phase in phases]


def uninstall(places: Places, *, force: bool = False) -> dict[str, Any]:
    """Nothing of the service is left. CannotError where runs live, or keep a volume, unless `force`."""
    live, kept = occupied(places, Phase.OPEN), occupied(places, Phase.KEPT)
    if (live or kept) and not force:
        raise CannotError(
            f"{len(live)} slots are in use by runs, {len(kept)} hold what runs wrote",
            fix="inbounds stop --all, and inbounds discard RUN for each; or --force, which destroys it",
        )
    stop(places)
    paths, done = places.paths, {"slots": len(live) + len(kept), "group": bool(_group(places.group))}
    if os.path.isdir(paths.state):
        until = time.monotonic() + ANSWER_SECONDS
        while problems := slots.recover(paths, all_of_them=True):
            if time.monotonic() > until:
                raise CannotError("; ".join(problems), fix="inbounds host uninstall --force, later")
            time.sleep(0.2)
    while os.path.isdir(paths.run) and handles.mounts_at(paths.run):
        handles.unmount(paths.run, handles.MNT_DETACH)
    if places.systemd and os.path.exists(places.unit):
        accounts.tool("systemctl", "disable", UNIT_NAME)
        os.unlink(places.unit)
        accounts.tool("systemctl", "daemon-reload")
    with slots.without_filter():
        if not any(packets.present(number) for number in range(protocol.SLOTS)):  # another service's rules stay
            packets.remove_all()
    for path in (paths.run, paths.state, places.library, f"{places.library}.new", f"{places.library}.old"):
        if os.path.isdir(path):
            shutil.rmtree(path)
    if _group(places.group):
        accounts.tool("groupdel", places.group)
    return done


# -- status ------------------------------------------------------------------------------------------------------------


def status(places: Places) -> dict[str, Any]:
    """What is there, for --json. As an ordinary user: of the slots only one's own, without their sizes."""
    has = hello(places)
    group = _group(places.group)
    installed = os.path.isdir(places.library)
    same = installed and _same_copy(places.library)
    facts: dict[str, Any] = {
        "installed": installed,
        "same_version": same,
        "library": places.library,
        "init": "systemd" if places.systemd else "none: started by install, and by nobody after a reboot",
        "answers": has is not None,
        "mechanisms": {str(one.name).lower(): bool(has and has & one) for one in Mechanism},
        "operators": group[0].gr_mem if group else [],
        "socket": places.paths.socket,
        "problems": [],
        "slots": [],
    }
    if os.access(places.paths.state, os.R_OK):
        facts["slots"] = [
            {"slot": number, "owner": record.owner, "phase": Phase(record.phase).name.lower(), "bytes": record.size}
            for number, record in slots.records(places.paths).items()
        ]
    elif reply := _ask(places, Op.SLOTS):
        mine = protocol.members_of(reply.numbers["low"], reply.numbers["high"])
        told = {number: _ask(places, Op.STATE, number) for number in mine}
        facts["slots"] = [
            {"slot": number, "owner": os.getuid(), "phase": Phase(state.numbers["phase"]).name.lower(), "bytes": 0}
            for number, state in told.items()
            if state  # else it has gone meanwhile
        ]
    checks = (
        (not installed, "not installed"),
        (installed and not same, "the copy is of another version of inbounds, or was changed: install again"),
        (installed and has is None, "the service does not answer you: not running, or you are not in the group yet"),
    )
    facts["problems"] = [text for wrong, text in checks if wrong]
    return facts
