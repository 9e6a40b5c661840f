"""Jails: spawn in two phases (sealed, then go), wait, kill to the last process.

`spawn` returns when PID 1 has sealed itself and said what holds; nothing untrusted runs before `go`. A jail ends with
its program, at its deadline, at its memory limit, by `kill`, or because this process is gone.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Literal

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox import seccomp
from inbounds.sandbox.census import look
from inbounds.sandbox.host import bubblewrap
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.launch import launcher, open_source
from inbounds.sandbox.layout import Layout, lay_out
from inbounds.sandbox.namespaces import namespaces_forbidden
from inbounds.sandbox.output import Output
from inbounds.sandbox.restraint import ENDED, PERCENT_MAX, Restraint
from inbounds.sandbox.spec import ENFORCED, MECHANISMS, JailExit, JailSpec

SETUP_SECONDS_MAX = 30  # 60 ms when idle; a machine that needs this long cannot run agents
END_SECONDS_MAX = 30  # how long the kernel may take to end a namespace of a thousand processes (measured: 0.3 s)
REPORT_BYTES_MAX = 1 << 16
DIAGNOSIS_BYTES = 2000
LENGTH_BYTES = 4
DIGITS_MAX = 15

REASONS: dict[str, Literal["exited", "deadline", "memory", "failed"]] = {
    "exited": "exited",
    "deadline": "deadline",
    "memory": "memory",
    "failed": "failed",
}


class Jail:
    """A running jail. listeners: name -> socket to accept on. enforcement: mechanism -> "enforced" or "absent: why"."""

    def __init__(self, spec: JailSpec, control: socket.socket, bwrap_pidfd: int, output: Output, stderr: Path) -> None:
        """Use `spawn`."""
        self.spec = spec
        self.pid = 0
        self.listeners: dict[str, socket.socket] = {}
        self.enforcement: dict[str, str] = {}
        self._control = control
        self._bwrap_pidfd = bwrap_pidfd
        self._init_pidfd = -1
        self._output = output
        self._stderr = stderr
        self._killed = False
        self._exit: JailExit | None = None
        self._lock = threading.Lock()
        self._restraint: Restraint | None = None
        self._started_at = time.monotonic()

    # -- set-up ------------------------------------------------------------------------------------------------------

    def _await_seal(self) -> None:
        """Receive the two reports of PID 1: the listeners' descriptors, then what holds."""
        deadline = time.monotonic() + SETUP_SECONDS_MAX
        words, descriptors = self._report(deadline, len(self.spec.listeners))
        for listener, fd in zip(self.spec.listeners, descriptors, strict=False):
            self.listeners[listener.name] = socket.socket(fileno=fd)
        if words.get("stage") != "bound" or len(descriptors) != len(self.spec.listeners):
            raise HostError(f"PID 1 passed out {len(descriptors)} of {len(self.spec.listeners)} listeners")
        words, _ = self._report(deadline, 0)
        if words.pop("stage", "") != "sealed":
            raise HostError("PID 1 did not say that it is sealed")
        self.enforcement = {name: words.get(name, "absent: not reported by PID 1") for name in MECHANISMS}
        if self._restraint:
            self._restraint.enter()

    def _report(self, deadline: float, descriptors_max: int) -> tuple[dict[str, str], list[int]]:
        """One report: length, text; pid and descriptors come with the kernel's own word beside it."""
        received, ancillary = bytearray(), []
        # a report is read exactly, so that the next one's descriptors stay with it
        while wanted := _missing(received):
            self._control.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                space = socket.CMSG_SPACE(4 * descriptors_max) + socket.CMSG_SPACE(12)
                part, more, _, _ = self._control.recvmsg(wanted, space)
            except TimeoutError:
                raise HostError(f"PID 1 was not ready in {SETUP_SECONDS_MAX} s", fix="inbounds doctor") from None
            if not part:
                raise HostError("the jail ended during its set-up", fix="inbounds doctor")
            received += part
            ancillary += more
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and self._init_pidfd == -1:
                self.pid = struct.unpack("iII", data)[0]
                self._init_pidfd = os.pidfd_open(self.pid)
                init = look(self.pid)
                self._restraint = Restraint(init) if init else None
        return parse_report(bytes(received[LENGTH_BYTES:])), descriptors

    # -- life --------------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Let the program start; from now on its deadline runs."""
        self._started_at = time.monotonic()
        try:
            self._control.sendall(b"G")
        except OSError as error:
            raise HostError(f"the jail was gone before it began: {error}") from error

    def wait(self, timeout: float | None = None) -> JailExit | None:
        """Wait up to `timeout` seconds for the jail's end; None if it still runs.

        Its own deadline is enforced here a second time, in case its PID 1 does not.
        """
        own = self._started_at + self.spec.deadline_ms / 1000 + SETUP_SECONDS_MAX
        until = own if timeout is None else min(own, time.monotonic() + timeout)
        while self._exit is None:
            left = until - time.monotonic()
            waiting = select.poll()
            waiting.register(self._init_pidfd, select.POLLIN)
            if waiting.poll(max(0, left * 1000)):
                self._finish("failed")
            elif time.monotonic() >= own:
                self._end("deadline")
            elif left <= 0:
                return None
        return self._exit

    def slow(self, percent: int) -> str:
        """Slow it down; what was done, for the journal: "cpu.max 50%" or, without a delegated cgroup, "nice 19".

        By cpu.max it gets `percent` (1 to 99) of the CPUs; by nice only what nobody else on the host wants. Call it
        again now and then: nice has to be given to what a jail makes in sessions of its own. Never undone.
        """
        if not 1 <= percent <= PERCENT_MAX:
            raise OperatorError(f"a jail slowed down to {percent} %", expected=f"1 to {PERCENT_MAX}")
        return self._restraint.slow(percent) if self._restraint and self._exit is None else ENDED

    def freeze(self) -> str:
        """Have no process of it execute any more, PID 1 included; how: "cgroup.freeze", "SIGSTOP", "killed", "ended".

        Memory, files and descriptors stay as they are until `kill`. From any thread, any time; never undone.
        """
        return self._restraint.freeze(self.kill) if self._restraint and self._exit is None else ENDED

    def kill(self) -> JailExit:
        """Kill every process of the jail and wait until the kernel has ended the last one; from any thread, any time.

        The proof is the pidfd of the PID namespace's init: the kernel ends all others before it reports that one's end.
        """
        return self._end("killed")

    def _end(self, reason: Literal["killed", "deadline"]) -> JailExit:
        if self._exit is None:
            self._killed = reason == "killed"
            _signal_kill(self._init_pidfd)
            self._finish(reason)
        assert self._exit is not None
        return self._exit

    def _finish(self, otherwise: Literal["killed", "deadline", "failed"]) -> None:
        """After the init's end: take its last report if it made one, and wait for what is left on the host's side."""
        for pidfd in (self._init_pidfd, self._bwrap_pidfd):
            if not _ended(pidfd, END_SECONDS_MAX):
                raise HostError(f"jail {self.pid} did not end in {END_SECONDS_MAX} s after SIGKILL")
        with self._lock:
            if self._exit is not None:
                return
            self._output.finish(END_SECONDS_MAX)
            words: dict[str, str] = {}
            # it may have been killed before it could say anything: then `otherwise` stands
            with contextlib.suppress(HostError, OSError):
                words, _ = self._report(time.monotonic() + 1, 0)
            named = REASONS.get(words.get("end", ""))
            self._exit = JailExit(
                # a report says that the program had ended before anybody killed it
                reason=named or ("killed" if self._killed else otherwise),
                exit_code=_number(words.get("code", "0")),
                signal=_number(words.get("signal", "0")) if words else int(signal.SIGKILL),
                ms=_number(words.get("ms", "")) or int((time.monotonic() - self._started_at) * 1000),
                detail="; ".join(filter(None, (words.get("detail", ""), self._output.lost))),
                stdout_bytes=self._output.written[0],
                stderr_bytes=self._output.written[1],
            )
            self._close()

    def _close(self) -> None:
        if self._restraint:
            self._restraint.release()
        for listener in self.listeners.values():
            listener.close()
        self._control.close()

    def __del__(self) -> None:
        """Close the pidfds last: another thread may still be waiting on them while one finishes."""
        for pidfd in (self._init_pidfd, self._bwrap_pidfd):
            if pidfd != -1:
                os.close(pidfd)

    def abandon(self) -> str:
        """End a jail whose set-up failed; what was written to its stderr, for the error message."""
        self._control.close()
        for listener in self.listeners.values():
            listener.close()
        _signal_kill(self._bwrap_pidfd)
        if self._init_pidfd != -1:
            _signal_kill(self._init_pidfd)
            _ended(self._init_pidfd, END_SECONDS_MAX)
        _ended(self._bwrap_pidfd, END_SECONDS_MAX)
        if self._restraint:
            self._restraint.release()
        self._output.finish(END_SECONDS_MAX)
        with open(self._stderr, "rb") as file:
            return file.read(DIAGNOSIS_BYTES).decode("utf-8", "replace").strip().replace("\n", "; ")


def _missing(received: bytearray) -> int:
    """How many bytes of a report are still to come: first its length, then its text."""
    if len(received) < LENGTH_BYTES:
        return LENGTH_BYTES - len(received)
    (size,) = struct.unpack("!I", received[:LENGTH_BYTES])
    if size > REPORT_BYTES_MAX:
        raise HostError("PID 1 said more than it should")
    return LENGTH_BYTES + int(size) - len(received)


def parse_report(text: bytes) -> dict[str, str]:
    """PID 1's "name<TAB>value" lines; a line without a tab is dropped, control characters become spaces."""
    words = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        name, found, value = line.partition("\t")
        if found:
            words[name] = "".join(c if c.isprintable() else " " for c in value)
    return words


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0


def _signal_kill(pidfd: int) -> None:
    # one that is not there any more has ended already, which is what was wanted
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _ended(pidfd: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _start(layout: Layout, identity: Identity, output: Output, control: socket.socket) -> int:
    """Hand bubblewrap its descriptors; its pidfd. Every copy that this process has of them is closed again."""
    opened: list[int] = []
    try:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        opened.append(null)
        memory = []
        for name, content in layout.memory_files:
            memory.append(seccomp.memory_file(name, content))
            opened.append(memory[-1])
        sources = []
        for path in layout.sources:
            sources.append(open_source(path))
            opened.append(sources[-1])
        inherit = [null, *output.writing, control.fileno(), *memory]
        _, pidfd = launcher().launch(layout.argv, inherit, sources, identity.uid, identity.gid)
        return pidfd
    finally:
        for fd in opened:
            os.close(fd)


def _require(jail: Jail) -> None:
    """HostError if a mechanism that the specification asks for was not found in force."""
    found = jail.enforcement
    missing = [f"{name} ({found[name]})" for name in jail.spec.require if found[name] != ENFORCED]
    if missing:
        raise HostError(f"this host does not enforce {', '.join(missing)}", fix="inbounds doctor")


def spawn(spec: JailSpec, *, identity: Identity, scratch: Path) -> Jail:
    """Start a sealed jail that waits for `go`; stdout and stderr go to files of these names in `scratch`.

    HostError if the host cannot make it or if a mechanism that the specification requires does not hold inside;
    OperatorError if the specification is impossible. In either case nothing is left running.
    """
    spec.check()
    layout = lay_out(spec, identity, bubblewrap())
    stderr = scratch / "stderr"
    output = Output(str(scratch / "stdout"), str(stderr), spec.limits.output_bytes, identity.uid, identity.gid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        pidfd = _start(layout, identity, output, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        output.started()
    jail = Jail(spec, ours, pidfd, output, stderr)
    try:
        ours.settimeout(SETUP_SECONDS_MAX)
        ours.sendall(struct.pack("!I", len(layout.task)) + layout.task)
        jail._await_seal()  # noqa: SLF001  # the constructor's second half
        if identity.dropped:
            jail.enforcement["dedicated_user"] = ENFORCED
        else:
            jail.enforcement["dedicated_user"] = "absent: not started as root, so that jails share your user"
        _require(jail)
    except (HostError, OSError) as error:
        said = jail.abandon()
        found = error.found if isinstance(error, HostError) else str(error)
        forbidden = namespaces_forbidden(identity)
        raise HostError(
            f"{found}: {said}" if said else found,
            where=f"jail {spec.role}",
            expected="user namespaces for jails" if forbidden else "a host that can make this jail",
            fix=forbidden.fix if forbidden else "inbounds doctor",
        ) from error
    return jail
