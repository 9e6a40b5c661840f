"""A person's command in the jail that a role would get, over HEAD of a thread; nothing it writes is kept.

For `inbounds shell`. Output is copied as it comes; input is not passed on, because a jail's stdin is /dev/null and it
has no terminal (a terminal is a way to type into the host). No model or tool broker answers in it.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from inbounds.contracts.documents import Enforcement
from inbounds.contracts.errors import HostError
from inbounds.contracts.job import WORK
from inbounds.contracts.limits import Limits
from inbounds.contracts.paths import below
from inbounds.run import documents, layer
from inbounds.run.base import find_base, place
from inbounds.run.bind import Base, Wish, narrow, no_work
from inbounds.run.building import declared, inside, jail_limits
from inbounds.run.crew import Crew
from inbounds.run.documents import Documents
from inbounds.run.home import Home
from inbounds.run.housing import WORKSPACE, ceilings
from inbounds.run.kept import keep
from inbounds.run.mounts import layer_binds
from inbounds.run.scratch import Scratch
from inbounds.sandbox.hardened import ServiceGoneError, Slot, reach
from inbounds.sandbox.identity import Identity, identity, in_slot
from inbounds.sandbox.jail import Jail, drop_spare, keep_spare
from inbounds.sandbox.spec import STANDING_ROLES, Bind, JailExit, JailLimits, JailSpec
from inbounds.sandbox.volume import Volume

DEADLINE_MS = 24 * 3_600_000  # a person may leave a command running for a day
GRACE_MS = 3_600_000  # a slot's watchdog ends the visit itself, a person's first command long over
OUTPUT_BYTES_MAX = 1 << 30  # per stream, on disk while it runs; a person watching stops it long before
POLL_S = 0.05
CHUNK = 1 << 16
SIGNAL_BASE = 128  # a shell's own convention for a command that a signal ended
INTERRUPTED = SIGNAL_BASE + 2


@dataclass(slots=True)
class Visit:
    """A workspace over HEAD and commands in jails over it. Use as a context: leaving deletes it all.

    `jail` and its crew stay between two commands where more are to come and the role may have a jail that stands.
    """

    role: str
    thread: str
    found: Documents
    base: Base
    who: Identity
    layer: Path
    scratch: Scratch
    volume: Volume
    limits: JailLimits
    build: tuple[str, ...]
    jail: Jail | None = None
    crew: Crew | None = None

    @classmethod
    def prepare(cls, home: Home, directory: Path, role: str, say: Callable[[str], None]) -> "Visit":
        """Check HEAD out and build the layer if it is missing; in a slot of the host service where a run would be.

        RefusedError, in a run's words, where policy asks for that and there is none.
        """
        top, thread = place(directory)
        found = documents.read(top, thread)
        hardened = _hardened(found.policy.enforcement)
        who = identity(f"visit-{os.getpid()}")
        if not hardened:
            keep_spare(who, again=False)  # most of the first jail's start is done while the workspace is made
        base = find_base(top, found, home)
        layer.ensure(home, layer.need(base.store, base.tree, thread), say)
        limits, _ = narrow(found, no_work(found), Wish())
        build = declared(found, base.store, base.tree, found.policy.protected)
        scratch = Scratch.make(home.path)
        try:
            if hardened:
                who = in_slot(_slot(limits, scratch, encrypt="encryption" in found.policy.enforcement.require))
            volume = _workspace(found, base, who, scratch)
        except BaseException:
            _give_back(who, scratch)
            raise
        there = home.layers / base.layer / layer.ENV
        ceilings_ = jail_limits(limits, output_bytes=OUTPUT_BYTES_MAX)
        made = cls(role, thread, found, base, who, there, scratch, volume, ceilings_, inside(build))
        if not hardened:
            spec = made._spec((), standing=False)
            keep(home, found, role, base.commit, spec, who, volume, there)
        return made

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing behind."""
        self._leave()
        drop_spare()
        _give_back(self.who, self.scratch)

    @property
    def workspace(self) -> str:
        """Where commands start, inside."""
        return WORK if self.thread == "." else f"{WORK}/{self.thread}"

    def run(self, argv: tuple[str, ...], *, more: bool = False) -> int:
        """Run `argv`, copying what it writes as it comes; its exit code, or 128 and the signal's number.

        With `more` to come, a coder's next command gets the same jail: files in HOME and /tmp stay, processes do not.
        """
        spec = self._spec(argv, standing=more and self.role in STANDING_ROLES)
        jail = self._enter(spec)
        try:
            ended = self._copy(jail)
        except KeyboardInterrupt:
            self._leave()
            return INTERRUPTED
        if not spec.standing:
            self._leave()
        for lost in _remarks(ended):
            sys.stderr.write(f"inbounds: {lost}\n")
        return ended.exit_code or (SIGNAL_BASE + ended.signal if ended.signal else 0)

    def _enter(self, spec: JailSpec) -> Jail:
        """Start the command, in the jail that stands if there is one."""
        if self.jail is not None:
            try:
                self.jail.run_again(spec.argv, spec.env, spec.cwd)
            except HostError:  # it has ended, at a limit of its own
                self._leave()
            else:
                return self.jail
        self.crew = Crew(self.who)
        self.jail = self.crew.open(spec, self.scratch.path)
        self.jail.go()
        return self.jail

    def _leave(self) -> None:
        """End the jail."""
        jail, crew, self.jail, self.crew = self.jail, self.crew, None, None
        if jail and crew:
            crew.halt()
            crew.finish(jail)

    def _spec(self, argv: tuple[str, ...], *, standing: bool) -> JailSpec:
        places = [*self.found.config.tests.pythonpath, *self.base.layer_pythonpath]
        return JailSpec(
            role=self.role,
            argv=argv,
            cwd=self.workspace,
            env={"TERM": "dumb", "PYTHONPATH": ":".join(f"{WORK}/{path}".removesuffix("/.") for path in places)},
            binds=(
                *(Bind(b.source, b.target, writable=b.writable) for b in self.volume.binds()),
                *layer_binds(self.layer),
            ),
            deadline_ms=DEADLINE_MS,
            limits=self.limits,
            local_servers=self.role == "tester",
            standing=standing,
            build=self.build,
        )

    def _copy(self, jail: Jail) -> JailExit:
        """Follow the jail's output files until it is over."""
        ended: JailExit | None = None
        with (self.scratch.path / "stdout").open("rb") as out, (self.scratch.path / "stderr").open("rb") as err:
            while ended is None:
                ended = jail.wait(POLL_S)
                for source, target in ((out, sys.stdout.buffer), (err, sys.stderr.buffer)):
                    _pour(source, target)
        return ended


def _hardened(asked: Enforcement) -> bool:
    """Whether a run would have a slot of the host service; RefusedError where it must and could not."""
    if asked.mode == "rootless" or (asked.mode == "auto" and not reach().usable):
        return False
    from inbounds.run.preflight import settle_host  # it brings the judges along

    return settle_host(asked) == "hardened"


def _slot(limits: Limits, scratch: Scratch, *, encrypt: bool) -> Slot:
    """A slot as a run of this thread would have, for as long as a command may run."""
    made = Slot.open(replace(ceilings(limits, encrypt=encrypt), deadline_ms=_now_ms() + DEADLINE_MS + GRACE_MS))
    try:
        scratch.has_slot(made.number)
    except BaseException:
        made.discard()
        raise
    return made


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _workspace(found: Documents, base: Base, who: Identity, scratch: Scratch) -> Volume:
    """The checkout, beside the visit's other files or on its slot's volume."""
    return Volume.prepare(
        base.store,
        base.tree,
        found.thread,
        found.config.interfaces.read,
        str((Path(who.slot.view) if who.slot else scratch.path) / WORKSPACE),
        uid=who.uid if who.dropped else None,
        gid=who.gid if who.dropped else None,
        protected=[path for path in found.policy.protected if below(path, found.thread)],
        watched=False,
    )


def _give_back(who: Identity, scratch: Scratch) -> None:
    """Destroy the slot, if there is one, and delete the visit's files."""
    if who.slot:
        try:
            who.slot.discard()
            scratch.slot_is_gone()
        except ServiceGoneError:  # it destroys it when the next visit asks it to, by the number that is kept
            who.slot.close()
            os.close(scratch.lock)
            return
    scratch.remove()


def _pour(source: BinaryIO, target: BinaryIO) -> None:
    while part := source.read(CHUNK):
        target.write(part)
        target.flush()


def _remarks(ended: JailExit) -> list[str]:
    """What a person would otherwise wonder about."""
    found = [f"the jail {ended.reason}: {ended.detail or 'ended by its limits'}"] if ended.reason != "exited" else []
    lost = max(ended.stdout_bytes, ended.stderr_bytes) - OUTPUT_BYTES_MAX
    return [*found, *([f"{lost} bytes of output were not kept"] if lost > 0 else [])]
