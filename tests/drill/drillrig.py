"""Small cases made by a test, and drills over jails that lack what a test takes away from them."""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from inbounds.drill.case import Case, load
from inbounds.drill.ground import Ground
from inbounds.drill.mode import House, Mode, choose
from inbounds.drill.runner import Drill, Result
from inbounds.sandbox.jail import Jail, spawn
from inbounds.sandbox.spec import Bind, JailLimits, JailSpec

WRITE = 'say(written=outcome(lambda: open(HOST["outside"] + "/made", "w").close()))'
OBSERVE = """
def observe(before, after):
    return ("ESCAPED" if after["outside"] != before["outside"] else "BLOCKED"), str(after["said"])
"""


@dataclass(frozen=True)
class Weakened:
    """A mode whose jails are built by `change` from what the real ones are asked to be."""

    change: Callable[[JailSpec, Path], JailSpec]
    real: Mode
    name: str = "rootless"

    @contextmanager
    def house(self, directory: Path, limits: JailLimits) -> Iterator[House]:
        with self.real.house(directory, limits) as house:
            yield Holed(house.identity, house.place, self.change)


@dataclass(frozen=True)
class Holed(House):
    """Its jails are not those that are asked for."""

    change: Callable[[JailSpec, Path], JailSpec]

    def spawn(self, spec: JailSpec, scratch: Path) -> Jail:
        return spawn(self.change(spec, scratch), identity=self.identity, scratch=scratch)


def outside_shown(spec: JailSpec, scratch: Path) -> JailSpec:
    """A hole: the directory outside is bound writable where the host has it."""
    outside = str(scratch.parent / "outside")
    return replace(spec, binds=(*spec.binds, Bind(outside, outside, writable=True)))


def nothing_required(spec: JailSpec, scratch: Path) -> JailSpec:
    """No hole of its own: for jails that a test takes a mechanism away from. On the host's network nobody has port 53."""
    return replace(spec, require=(), listeners=())


def write_case(directory: Path, control: str, attack: str = "", observe: str = OBSERVE, **names: object) -> Path:
    """A case file; `attack` is the control's source where nothing else is said."""
    head = {"CLASS": "workspace", "REQUIREMENT": "F2", **names}
    lines = ['"""A case of a test."""', *(f"{name} = {value!r}" for name, value in head.items())]
    lines += [f"CONTROL = {textwrap.dedent(control)!r}", f"ATTACK = {textwrap.dedent(attack or control)!r}", observe]
    path = directory / "workspace_made.py"
    path.write_text("\n".join(lines))
    return path


def run(case: Case | Path, mode: Mode | None = None, ground: Ground | None = None) -> Result:
    """One case in a drill of its own."""
    loaded = load(case) if isinstance(case, Path) else case
    with Drill(ground or Ground(), mode or choose("rootless", "test")) as drill:
        [result] = drill.run([loaded], jobs=1, tell=lambda _: None)
    return result
