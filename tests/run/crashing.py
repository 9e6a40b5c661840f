"""Inside a supervisor that is to die: names every boundary it passes, and kills somebody by SIGKILL at a given one.

Loaded by a stand-in for the interpreter before the supervisor's own program; changes nothing of what that does. Knows
neither what a boundary means nor what shall come of it: tests/run/crashrig.py does.

Boundaries have names that are the same in every run of one script: the kind, what, the how-manieth, the moment.
  effect Commit#2 before      the record that leads to it is on disk, nothing of it is done
  effect Commit#2 behind      it is carried out, by the worker too, and what it led to inside is as well
  record commit.made#1 before done, and the journal does not know
  record commit.made#1 behind one line is written: not synced, no checkpoint, no anchor
  inside Dispose#1 os.rmdir#3 before a change to a file system, or a program's start, in the middle of either
"""

import collections
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink",
                     "os.truncate", "subprocess.Popen"})  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ACTING = "Finish#"  # the promoter: the one program that acts by itself and may outlive who asked it
SOON_S = 0.1  # it is in the middle of its work by then
VICTIMS = {"gateway": "gateway.control:GatewayProcess", "broker": "broker.control:BrokerProcess"}


class Crash:
    """What one supervisor has been told: whom to kill, and where; without that, to write every boundary down."""

    def __init__(self, told: Path) -> None:
        """`told` is a list, one order for each supervisor of the run: {"victim", "at"}; {} for none."""
        self._told, self._pid = told, os.getpid()
        orders = json.loads(told.read_bytes())
        order = orders.pop(0) if orders else {}
        told.write_text(json.dumps(orders))
        self._victim, self._at = str(order.get("victim", "")), str(order.get("at", ""))
        self._counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._struck = False
        self.children: dict[str, int] = {}
        self._points, self._synced = (
            os.open(told.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            for suffix in (".points", ".synced")
        )

    def number(self, what: str) -> str:
        """The name of this time."""
        with self._lock:
            self._counts[what] += 1
            return f"{what}#{self._counts[what]}"

    def reach(self, point: str) -> None:
        """A boundary; who dies here does so now."""
        os.write(self._points, f"{point}\n".encode())
        if point == self._at and not self._struck:
            self.strike()

    def strike(self) -> None:
        """Kill; what was alive then is written down first."""
        self._struck = True
        pid = self._pid if self._victim == "supervisor" else self.children.get(self._victim, 0)
        assert pid > 0, f"no {self._victim} lives at {self._at}"
        told = {"pid": pid, "at_ms": time.time_ns() // 1_000_000, "family": list(family(self._pid))}
        self._told.with_suffix(".struck").write_text(json.dumps(told))
        os.kill(pid, signal.SIGKILL)

    def synced(self, size: int) -> None:
        """So much of the journal a loss of power leaves."""
        os.write(self._synced, f"{size}\n".encode())

    @contextmanager
    def within(self, label: str) -> Iterator[None]:
        """What this thread does now."""
        outer = getattr(self._local, "label", "")
        self._local.label = label
        try:
            yield
        finally:
            self._local.label = outer

    @property
    def label(self) -> str:
        """What this thread is doing, "" for nothing that counts."""
        return str(getattr(self._local, "label", ""))

    def heard(self, event: str, args: Any) -> None:
        """An audit event of the interpreter (PEP 578), before what it is about."""
        if event not in CHANGES or not self.label or self._struck or os.getpid() != self._pid:
            return
        if event == "open" and (not isinstance(args[2], int) or not args[2] & WRITES):
            return
        point = self.number(f"inside {self.label} {event}")
        self.reach(f"{point} before")
        if event == "subprocess.Popen" and self.label.startswith(ACTING):
            os.write(self._points, f"{point} soon\n".encode())
            if f"{point} soon" == self._at:
                threading.Timer(SOON_S, self.strike).start()


def family(pid: int) -> Iterator[tuple[int, str]]:
    """(pid, start time) of a process and all below it."""
    parents: dict[int, tuple[int, str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents[int(name)] = int(fields[1]), fields[19]
    for one, (_, started) in parents.items():
        at = one
        while at in parents and at != pid:
            at = parents[at][0]
        if at == pid:
            yield one, started


def arm(told: str) -> None:
    """Put the boundaries into the program that is about to run."""
    crash = Crash(Path(told) / f"{Path(sys.argv[1]).name}.json")
    _effects(crash)
    _records(crash)
    _children(crash)
    sys.addaudithook(crash.heard)


def _effects(crash: Crash) -> None:
    from inbounds.run.supervisor import Supervisor
    from inbounds.run.worker import Worker

    perform, put, close = Supervisor.perform, Worker.put, Supervisor._close

    def performs(self: Supervisor, effect: Any, ref: str) -> None:
        point = crash.number(type(effect).__name__)
        crash.reach(f"effect {point} before")
        handed: list[str] = []
        with crash.within(point):
            crash._local.handed = handed
            perform(self, effect, ref)
        if not handed:
            crash.reach(f"effect {point} behind")

    def puts(self: Worker, ref: str, work: Callable[[], None]) -> None:
        label = crash.label
        crash._local.handed.append(label)

        def works() -> None:
            with crash.within(label):
                work()
            crash.reach(f"effect {label} behind")

        put(self, ref, works)

    def closes(self: Supervisor) -> int:
        crash.reach("effect Close#1 before")
        with crash.within("Close#1"):
            return close(self)

    Supervisor.perform, Worker.put, Supervisor._close = performs, puts, closes  # type: ignore[method-assign] # that is how it dies


def _records(crash: Crash) -> None:
    from inbounds.journal.writer import Journal

    put, append, sync = Journal._put, Journal.append, Journal.sync

    def puts(self: Journal, kind: str, data: dict[str, Any], at_ms: int) -> Any:
        point = crash.number(f"record {kind}")
        crash.reach(f"{point} before")
        record = put(self, kind, data, at_ms)
        crash.reach(f"{point} behind")
        return record

    def appends(self: Journal, kind: str, *args: Any, **kwargs: Any) -> Any:
        with crash.within(f"append {kind}"):
            return append(self, kind, *args, **kwargs)

    def syncs(self: Journal) -> None:
        sync(self)
        crash.synced(self._size)

    Journal._put, Journal.append, Journal.sync = puts, appends, syncs  # type: ignore[method-assign] # that is how it dies


def _children(crash: Crash) -> None:
    import importlib

    for name, place in VICTIMS.items():
        module, _, kind = place.partition(":")
        holder = getattr(importlib.import_module(f"inbounds.{module}"), kind)

        def starts(_: Any, /, *args: Any, name: str = name, start: Any = holder.start, **kwargs: Any) -> Any:
            made = start(*args, **kwargs)
            crash.children[name] = made.pid
            return made

        holder.start = classmethod(starts)
