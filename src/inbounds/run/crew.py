"""The jails of one run: started from one long-lived thread, known by role, and all ended by one call.

After `halt` no further jail starts, whoever asks (E10). Composes nothing and judges nothing.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.sandbox.census import Process, look, members
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.jail import Jail, drop_spare, keep_spare, spawn
from inbounds.sandbox.restraint import NICE
from inbounds.sandbox.spec import JailExit, JailSpec

Post = Callable[[str, Mapping[str, Any]], None]

# What is recorded of a command: enough to see what ran; the whole of a prompt is kept elsewhere, by hash.
ARGUMENTS_MAX, ARGUMENT_CHARS_MAX = 60, 300

SLOWED = "coder"  # the role that limits are about
FULL = 100


class HaltedError(HostError):
    """The run is stopping: nothing is started any more."""


class Crew:
    """Every living jail of a run; methods are safe from any thread."""

    def __init__(self, identity: Identity, post: Post | None = None, n: Callable[[], int] = lambda: 0) -> None:
        """`post` hears of each start and exit, with the iteration that `n` gives."""
        self._identity, self._post, self._n = identity, post, n
        self._lock = threading.Lock()
        self._jails: dict[Jail, str] = {}
        self._halted = False
        self._percent = 0
        self._prepares = False

    def move_in(self, identity: Identity) -> None:
        """From now on jails are this identity's; none has been opened before."""
        with self._lock:
            self._identity = identity

    def open(self, spec: JailSpec, scratch: Path, hidden: Mapping[str, str] = MappingProxyType({})) -> Jail:
        """A jail that waits for its go; HaltedError after `halt`. `hidden`: text of its command -> what is recorded."""
        with self._lock:
            self._refuse()
            slow = self._percent if spec.role == SLOWED else 0
            if slow:
                spec = replace(spec, limits=replace(spec.limits, nice=NICE))
            jail = spawn(spec, identity=self._identity, scratch=scratch)
            self._jails[jail] = spec.role
            self._prepare()
            if slow:
                jail.slow(slow)
            if self._post:  # before `halt` can go on: whoever halts has heard of every jail that started
                enforcement = dict(jail.enforcement)
                started = {"role": spec.role, "n": self._n(), "enforcement": enforcement, "argv0": spec.argv[0]}
                self._post("jail.started", {**started, "command": _command(spec.argv, hidden)})
        return jail

    def _prepare(self) -> None:
        """A run starts many jails: from its second on, most of a start is done beforehand, while an agent thinks."""
        if self._post and not self._prepares and self._identity.slot is None:
            self._prepares = True
            keep_spare(self._identity)

    def may_start(self) -> None:
        """HaltedError after `halt`: nothing else is opened either for a run that is stopping."""
        with self._lock:
            self._refuse()

    def _refuse(self) -> None:
        if self._halted:
            raise HaltedError("the run is stopping", expected="no further jail")

    def finish(self, jail: Jail, after: Callable[[], None] | None = None) -> JailExit:
        """Wait for a jail's end, do what must stand in the journal before its exit does, and say so."""
        ended = jail.wait(None)
        assert ended is not None
        if after:
            after()
        with self._lock:
            role = self._jails.pop(jail, "")
            if role == SLOWED and self._percent:
                jail.lift()  # a slot's share is that of all its jails: what is judged next has it whole
        if self._post:
            self._post(
                "jail.exited",
                {
                    "role": role,
                    "n": self._n(),
                    "reason": ended.reason,
                    "exit_code": ended.exit_code,
                    "signal": ended.signal,
                    "ms": ended.ms,
                },
            )
        return ended

    def run(self, spec: JailSpec, scratch: Path) -> JailExit:
        """Open, go, and wait."""
        jail = self.open(spec, scratch)
        try:
            jail.go()
        except BaseException:
            jail.kill()
            self.finish(jail)
            raise
        return self.finish(jail)

    def pids(self) -> set[int]:
        """Every living process of its jails, as the host numbers them."""
        inits = [found for jail in list(self._jails) if (found := look(jail.pid)) is not None]
        return {process.pid for init in inits for process in members(init)}

    def kill(self, role: str) -> None:
        """End the jails of one role."""
        with self._lock:
            chosen = [jail for jail, its in self._jails.items() if its == role]
        for jail in chosen:
            jail.kill()

    def inits(self) -> list[Process]:
        """The first process of each jail that is alive now."""
        return [found for jail in list(self._jails) if (found := look(jail.pid)) is not None]

    def slow(self, percent: int) -> str:
        """Slow down the agent's jail from now on, later ones too; what was done, for the journal (see Jail.slow).

        Cheap to repeat, and to be repeated: an agent can make what the last call has not seen. 100 lifts it for later
        jails, and for the living one where the host service holds it; priority is not given back without privilege.
        Judges are never slowed, but in a slot those that the agent itself calls for are, as long as it lives.
        """
        lifted = percent >= FULL
        with self._lock:
            self._percent = 0 if lifted else percent
            chosen = [jail for jail, role in self._jails.items() if role == SLOWED]
        if lifted:
            given = sorted({said for jail in chosen if (said := jail.lift())})
            return ", ".join([*given, "later jails have their full share"])
        done = sorted({jail.slow(percent) for jail in chosen})
        return ", ".join(done) or "no jail of the agent is alive; later ones begin slowly"

    def freeze(self) -> dict[str, str]:
        """Freeze every jail and let nothing start again: "role (pid)" -> how (see Jail.freeze). `halt` ends them.

        Those that are known are frozen before it waits for one that is being made.
        """
        frozen = {jail: jail.freeze() for jail in list(self._jails)}
        with self._lock:
            self._halted = True
            chosen = dict(self._jails)
        frozen |= {jail: jail.freeze() for jail in chosen if jail not in frozen}
        return {f"{chosen.get(jail, jail.spec.role)} ({jail.pid})": how for jail, how in frozen.items()}

    def halt(self) -> int:
        """End everything, and let nothing start again; returns how many jails were alive."""
        with self._lock:
            self._halted = True
            chosen = list(self._jails)
        alive = [jail for jail in chosen if jail.wait(0) is None]
        for jail in chosen:
            jail.kill()
        if self._prepares:
            drop_spare()
        return len(alive)


def _command(argv: Sequence[str], hidden: Mapping[str, str]) -> list[str]:
    """A command as the journal keeps it: secrets and long texts by their names, in bounds."""
    shown = []
    for argument in argv[:ARGUMENTS_MAX]:
        for text, name in hidden.items():
            argument = argument.replace(text, name) if text else argument  # noqa: PLW2901 - rewritten step by step
        more = len(argument) - ARGUMENT_CHARS_MAX
        shown.append(argument[:ARGUMENT_CHARS_MAX] + f"… ({more} more characters)" if more > 0 else argument)
    more = len(argv) - ARGUMENTS_MAX
    return [*shown, f"… ({more} more arguments)"] if more > 0 else shown
