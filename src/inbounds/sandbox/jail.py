"""Jails: spawn in two phases (sealed, then go), wait, kill to the last process.

`spawn` returns when PID 1 has sealed itself and said what holds; nothing untrusted runs before `go`. A jail ends with
its program, at its deadline, at its memory limit, by `kill`, or because this process is gone.
"""

import atexit
import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox.census import look
from inbounds.sandbox.host import bubblewrap
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.launch import launcher, open_source
from inbounds.sandbox.layout import attached, command_task, lay_out, spare_task
from inbounds.sandbox.namespaces import namespaces_forbidden
from inbounds.sandbox.output import Output
from inbounds.sandbox.restraint import ENDED, PERCENT_MAX, Restraint
from inbounds.sandbox.spec import ENFORCED, MECHANISMS, JailExit, JailSpec
from inbounds.sandbox.start import END_SECONDS_MAX, Spares, Started, ended, start

SETUP_SECONDS_MAX = 30  # 60 ms when idle; a machine that needs this long cannot run agents
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

    def __init__(self, spec: JailSpec, started: Started, output: Output, identity: Identity, scratch: Path) -> None:
        """Use `spawn`."""
        self.spec = spec
        self.pid = 0
        self.listeners: dict[str, socket.socket] = {}
        self.enforcement: dict[str, str] = {}
        self._control, self._control_fd = started.control, started.control.fileno()
        self._bwrap_pidfd = started.pidfd
        self._group, self._bwrap_pid, self._said = started.group, started.pid, started.said
        self._init_pidfd = -1
        self._output = output
        self.identity, self._scratch = identity, scratch
        self._killed = False
        self._exit: JailExit | None = None
        self._command_exit: JailExit | None = None  # of a standing jail's last command
        self._lock = threading.Lock()
        self._restraint: Restraint | None = None
        self._started_at = time.monotonic()

    # -- set-up ------------------------------------------------------------------------------------------------------

    def _await_seal(self, task: bytes, trees: list[int]) -> None:
        """Send the task, and the mounts to attach; receive PID 1's two reports: the listeners, then what holds."""
        try:
            _send_task(self._control, task, [*self._output.writing, *trees])
        finally:
            self._output.started()
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
        if self._restraint and self._group is None and self.identity.slot is None:
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
                self._restraint = Restraint(init, self._group) if init else None
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
        """Wait up to `timeout` seconds for the jail's end (a standing one's: its command's); None if it still runs.

        Its own deadline is enforced here a second time, in case its PID 1 does not.
        """
        own = self._started_at + self.spec.deadline_ms / 1000 + SETUP_SECONDS_MAX
        until = own if timeout is None else min(own, time.monotonic() + timeout)
        while self._exit is None and self._command_exit is None:
            left = until - time.monotonic()
            waiting = select.poll()
            waiting.register(self._init_pidfd, select.POLLIN)
            if self.spec.standing:
                waiting.register(self._control_fd, select.POLLIN)
            ready = {fd for fd, _ in waiting.poll(max(0, left * 1000))}
            if self._init_pidfd in ready:
                self._finish("failed")
            elif ready:
                self._finish_command()
            elif time.monotonic() >= own:
                self._end("deadline")
            elif left <= 0:
                return None
        return self._exit or self._command_exit

    def run_again(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
        """In a standing jail whose command has ended, let the next one start; `wait` for it as for the first.

        It has the former one's seal, limits, listeners and deadline (anew), and meets none of its processes: PID 1 has
        killed them and waited for each. Files in HOME, /tmp and /dev/shm are as that left them. stdout and stderr begin
        anew. OperatorError where the jail does not stand or is busy; HostError where it has ended: start another.
        """
        if not self.spec.standing or (self._command_exit is None and self._exit is None):
            problem = "its command runs still" if self.spec.standing else "it is no standing one"
            raise OperatorError(f"a second command in a jail: {problem}", where=f"jail {self.spec.role}")
        spec = replace(self.spec, argv=tuple(argv), env=dict(env), cwd=cwd)
        spec.check()
        with self._lock:
            if self._exit is not None:
                raise HostError("the jail has ended", expected="one that still stands", where=f"jail {spec.role}")
            output = _output(spec, self.identity, self._scratch)
            try:
                _send_task(self._control, command_task(spec), output.writing)
            except OSError as error:
                raise HostError(f"the jail has ended: {error}", where=f"jail {spec.role}") from error
            finally:
                output.started()
            self.spec, self._command_exit, self._output = spec, None, output
            self._started_at = time.monotonic()

    def slow(self, percent: int) -> str:
        """Slow it down; what was done, for the journal: "cpu.max 50%" or, without a delegated cgroup, "nice 19".

        By cpu.max it gets `percent` (1 to 99) of the CPUs; by nice only what nobody else on the host wants. Call it
        again now and then: nice has to be given to what a jail makes in sessions of its own. Undone by `lift` alone,
        and only in a slot of the host service, whose jails all have this share then.
        """
        if not 1 <= percent <= PERCENT_MAX:
            raise OperatorError(f"a jail slowed down to {percent} %", expected=f"1 to {PERCENT_MAX}")
        if self._restraint is None or self._exit is not None:
            return ENDED
        return self._in_slot(percent) if self.identity.slot else self._restraint.slow(percent)

    def lift(self) -> str:
        """Give back what `slow` has taken, where it can be given back; what was done, or "" where nothing was."""
        return self._in_slot(0) if self.identity.slot else ""

    def _in_slot(self, percent: int) -> str:
        assert self.identity.slot is not None
        try:
            return self.identity.slot.slow(percent)
        except HostError as error:  # a dead service has ended the jail; the run hears of that by another way
            return f"not slowed: {error.found}"

    def freeze(self) -> str:
        """Have no process of it execute any more, PID 1 included; how: "cgroup.freeze", "SIGSTOP", "killed", "ended".

        Memory, files and descriptors stay as they are until `kill`. From any thread, any time; never undone.
        """
        if self._restraint is None or self._exit is not None:
            return ENDED
        return self.identity.slot.hold(self.kill) if self.identity.slot else self._restraint.freeze(self.kill)

    def kill(self) -> JailExit:
        """Kill every process of the jail and wait until the kernel has ended the last one; from any thread, any time.

        The proof is the pidfd of the PID namespace's init: the kernel ends all others before it reports that one's end.
        """
        return self._end("killed")

    def _end(self, reason: Literal["killed", "deadline"]) -> JailExit:
        if self._exit is None:
            self._killed = reason == "killed"
            self._strike(self._init_pidfd)
            self._finish(reason)
        assert self._exit is not None
        return self._exit

    def _strike(self, *pidfds: int) -> None:
        """SIGKILL; through the host service where the processes are its slot's user's, whom only root may signal."""
        slot = self.identity.slot
        if slot is None:
            for pidfd in pidfds:
                _signal_kill(pidfd)
        elif ended(self._bwrap_pidfd, 0) or not slot.strike(self._bwrap_pid):
            # without its service PID 1 has this channel to live by; a supervisor that is root needs not wait for it
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            for pidfd in pidfds:
                with contextlib.suppress(PermissionError):
                    _signal_kill(pidfd)

    def _finish(self, otherwise: Literal["killed", "deadline", "failed"]) -> None:
        """After the init's end: take its last report if it made one, and wait for what is left on the host's side."""
        for pidfd in (self._init_pidfd, self._bwrap_pidfd):
            if pidfd == self._bwrap_pidfd and self._group:
                self._group.thaw()  # bubblewrap waits for its child and ends, but not where it is frozen with it
            if not ended(pidfd, END_SECONDS_MAX):
                raise HostError(f"jail {self.pid} did not end in {END_SECONDS_MAX} s after SIGKILL")
        with self._lock:
            if self._exit is not None:
                return
            if self._command_exit is not None:  # between two commands
                self._exit = self._command_exit
            else:
                # it may have been killed before it could say anything: then `otherwise` stands
                self._exit = self._ending(otherwise)[0]
            self._close()

    def _finish_command(self) -> None:
        """A standing jail's PID 1 has reported a command's end; or itself ended, which `_finish` hears of next."""
        with self._lock:
            if self._exit is None and self._command_exit is None:
                ending, stands = self._ending("failed")
                if stands:
                    self._command_exit = ending
                elif ended(self._init_pidfd, END_SECONDS_MAX):
                    self._exit = ending
                    self._close()

    def _ending(self, otherwise: Literal["killed", "deadline", "failed"]) -> tuple[JailExit, bool]:
        """From PID 1's last report, if it made one: how the program ended, and whether the jail takes another."""
        self._output.finish(END_SECONDS_MAX)
        words: dict[str, str] = {}
        with contextlib.suppress(HostError, OSError):
            words, _ = self._report(time.monotonic() + 1, 0)
        named = REASONS.get(words.get("end", ""))
        ending = JailExit(
            # a report says that the program had ended before anybody killed it
            reason=named or ("killed" if self._killed else otherwise),
            exit_code=_number(words.get("code", "0")),
            signal=_number(words.get("signal", "0")) if words else int(signal.SIGKILL),
            ms=_number(words.get("ms", "")) or int((time.monotonic() - self._started_at) * 1000),
            detail="; ".join(filter(None, (words.get("detail", ""), self._output.lost))),
            stdout_bytes=self._output.written[0],
            stderr_bytes=self._output.written[1],
        )
        return ending, words.get("standing") == "yes"

    def _release(self) -> None:
        if self._restraint:
            self._restraint.release()
        elif self._group:
            self._group.remove()

    def _close(self) -> None:
        self._release()
        os.close(self._said)
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
        self._strike(self._bwrap_pidfd, *([self._init_pidfd] if self._init_pidfd != -1 else []))
        if self._init_pidfd != -1:
            ended(self._init_pidfd, END_SECONDS_MAX)
        ended(self._bwrap_pidfd, END_SECONDS_MAX)
        self._release()
        self._output.finish(END_SECONDS_MAX)
        early = os.pread(self._said, DIAGNOSIS_BYTES, 0)
        os.close(self._said)
        with open(self._scratch / "stderr", "rb") as file:
            return (early + file.read(DIAGNOSIS_BYTES)).decode("utf-8", "replace").strip().replace("\n", "; ")


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


def _require(jail: Jail) -> None:
    """HostError if a mechanism that the specification asks for was not found in force."""
    found = jail.enforcement
    held = {name: found.get(name, "absent: no such mechanism") for name in jail.spec.require}
    missing = [f"{name} ({word})" for name, word in held.items() if word != ENFORCED]
    if missing:
        raise HostError(f"this host does not enforce {', '.join(missing)}", fix="inbounds doctor")


_spares: Spares | None = None
_spares_pid = 0
_keeping = threading.Lock()


def keep_spare(identity: Identity, *, again: bool = True) -> None:
    """From now on keep one jail of this identity started in advance, in idle time; only the first without `again`."""
    global _spares, _spares_pid  # one per process is the point
    drop_spare()
    with _keeping:
        if not _spares_pid:
            atexit.register(drop_spare)
        _spares, _spares_pid = Spares(identity, again=again), os.getpid()


def drop_spare() -> None:
    """End the jail that waits, if there is one, and start no other in advance."""
    global _spares
    with _keeping:
        spares, _spares = _spares, None
    if spares and _spares_pid == os.getpid():
        spares.close()


def spawn(spec: JailSpec, *, identity: Identity, scratch: Path) -> Jail:
    """Start a sealed jail that waits for `go`; stdout and stderr go to files of these names in `scratch`.

    HostError if the host cannot make it or if a mechanism that the specification requires does not hold inside;
    OperatorError if the specification is impossible. In either case nothing is left running.
    """
    spec.check()
    spared = not identity.slot and not spec.devices and not spec.build  # what is attached to a spare is nodev
    spare = _spares.take(identity) if spared and _spares and _spares_pid == os.getpid() else None
    if spare:
        try:
            return _from_spare(spare, spec, identity, scratch)
        except (HostError, OSError):
            # a kernel that can't do this, or a source that was replaced: from nothing, which says what is wrong, and
            # no further spare is made in vain
            drop_spare()
    layout = lay_out(spec, identity, bubblewrap())
    started = start(layout, identity)
    try:
        output = _output(spec, identity, scratch)
    except BaseException:
        started.discard()
        raise
    return _sealed(Jail(spec, started, output, identity, scratch), layout.task, [])


def _from_spare(spare: Started, spec: JailSpec, identity: Identity, scratch: Path) -> Jail:
    """A jail that was started in advance becomes the one that is asked for: told its task, given its binds."""
    opened: list[int] = []
    try:
        try:
            binds = attached(spec)
            for bind in binds:
                opened.append(open_source(bind.source))  # noqa: PERF401 - a failure half-way must close what is open
            trees = launcher().clone([(bind.source, bind.writable) for bind in binds], opened)
            opened += trees
            output = _output(spec, identity, scratch)
        except BaseException:
            spare.discard()
            raise
        return _sealed(Jail(spec, spare, output, identity, scratch), spare_task(spec), trees)
    finally:
        for fd in opened:
            os.close(fd)


def _output(spec: JailSpec, identity: Identity, scratch: Path) -> Output:
    paths = [str(scratch / name) for name in ("stdout", "stderr")]
    return Output(paths[0], paths[1], spec.limits.output_bytes, identity.uid, identity.gid,
                  shared=identity.slot is not None)  # fmt: skip


def _send_task(control: socket.socket, task: bytes, descriptors: list[int]) -> None:
    """A task after its length; descriptors go with the length."""
    control.settimeout(SETUP_SECONDS_MAX)
    socket.send_fds(control, [struct.pack("!I", len(task))], descriptors)
    control.sendall(task)


def _sealed(jail: Jail, task: bytes, trees: list[int]) -> Jail:
    """Tell PID 1 its task and wait for its seal. HostError, and nothing left, where the jail does not come to that."""
    try:
        jail._await_seal(task, trees)  # noqa: SLF001  # the constructor's second half
        if jail.identity.slot:
            jail.enforcement |= jail.identity.slot.enforcement(jail.pid)
        elif jail.identity.dropped:
            jail.enforcement["dedicated_user"] = ENFORCED
        else:
            jail.enforcement["dedicated_user"] = "absent: not started as root, so that jails share your user"
        _require(jail)
    except (HostError, OSError) as error:
        said = jail.abandon()
        found = error.found if isinstance(error, HostError) else str(error)
        forbidden = namespaces_forbidden(jail.identity)
        raise HostError(
            f"{found}: {said}" if said else found,
            where=f"jail {jail.spec.role}",
            expected="user namespaces for jails" if forbidden else "a host that can make this jail",
            fix=forbidden.fix if forbidden else "inbounds doctor",
        ) from error
    return jail
