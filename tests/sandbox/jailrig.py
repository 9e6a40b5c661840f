"""Runs code in a real jail and hands back what came out; and takes one mechanism away where a test is asked to."""

import os
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts.errors import HostError
from inbounds.sandbox import layout, seccomp
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import Identity, identity
from inbounds.sandbox.jail import Jail, spawn
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import JailExit, JailLimits, JailSpec

WITHOUT = os.environ.get("INBOUNDS_TEST_WITHOUT", "")
SECONDS = 30

# What hostile snippets need again and again: one raw system call, and the name of its outcome.
PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "done" if result != -1 else errno.errorcode[ctypes.get_errno()]
def outcome(function, *args):
    try:
        function(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"
"""


@dataclass
class Ended:
    end: JailExit
    stdout: str
    stderr: str
    enforcement: dict[str, str]

    @property
    def lines(self) -> list[str]:
        assert self.end.reason == "exited", (self.end, self.stderr)
        assert self.end.exit_code == 0, (self.end, self.stderr)
        return self.stdout.splitlines()


def take_away(monkeypatch: pytest.MonkeyPatch, mechanism: str) -> None:
    """Build jails without one mechanism, by changing what the supervisor asks for; the product knows no such switch."""
    real_program, real_arguments, real_task = seccomp.program, layout._arguments, layout._task

    def arguments(*args: Any) -> list[str]:
        out = real_arguments(*args)
        if mechanism == "net-namespace":
            out.remove("--unshare-net")
        return out

    def task(spec: JailSpec) -> dict[str, Any]:
        out = real_task(spec)
        if mechanism == "noexec":
            out["noexec"] = []
        if mechanism == "rlimits":
            out["rlimits"] = []
        if mechanism == "memory-poll":
            out["memory_bytes"] = 1 << 60
        return out

    def allow_all(machine: str = "", extra: tuple[str, ...] = ()) -> bytes:
        return bytes.fromhex("0600000000 00ff7f".replace(" ", ""))

    def no_landlock(machine: str = "", extra: tuple[str, ...] = ()) -> bytes:
        """A kernel without Landlock, as far as anything behind this filter can tell: the real call gives ENOSYS."""
        kept = seccomp.ALLOWED.copy()
        names = [name for name in kept if name.startswith("landlock_")]
        removed = {name: seccomp.ALLOWED.pop(name) for name in names}
        try:
            return real_program.__wrapped__(machine, extra)
        finally:
            seccomp.ALLOWED.update(removed)

    monkeypatch.setattr(layout, "_arguments", arguments)
    monkeypatch.setattr(layout, "_task", task)
    if mechanism == "seccomp":
        monkeypatch.setattr(seccomp, "program", allow_all)
    if mechanism == "landlock":
        monkeypatch.setattr(seccomp, "program", no_landlock)


class Rig:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.identity: Identity = identity(str(scratch))
        self.jails: list[Jail] = []
        self.require: tuple[str, ...] | None = () if WITHOUT else None
        self.count = 0

    def directory(self, name: str) -> Path:
        """A directory that the jail's user owns."""
        made = self.scratch / name
        made.mkdir(parents=True)
        os.chown(made, self.identity.uid, self.identity.gid)
        return made

    def spawn(self, *argv: str, **fields: Any) -> Jail:
        self.count += 1
        own = self.scratch / f"jail-{self.count}"
        own.mkdir()
        spec = JailSpec(argv=argv, **{"role": "test", "cwd": "/tmp", "deadline_ms": SECONDS * 1000, **fields})
        if self.require is not None:
            spec = replace(spec, require=self.require)
        jail = spawn(spec, identity=self.identity, scratch=own)
        self.jails.append(jail)
        jail.scratch = own  # type: ignore[attr-defined]  # for the tests' own reading
        return jail

    def end(self, jail: Jail) -> Ended:
        end = jail.wait(SECONDS + 10) or jail.kill()
        own: Path = jail.scratch  # type: ignore[attr-defined]  # set above
        read = [(own / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr")]
        return Ended(end, read[0], read[1], jail.enforcement)

    def run(self, *argv: str, **fields: Any) -> Ended:
        jail = self.spawn(*argv, **fields)
        jail.go()
        return self.end(jail)

    def python(self, code: str, *args: str, **fields: Any) -> Ended:
        return self.run(jail_python(), "-I", "-c", PRELUDE + textwrap.dedent(code), *args, **fields)

    def close(self) -> None:
        for jail in self.jails:
            jail.kill()


def host_or_skip() -> None:
    facts = probe()
    if facts.level == 0:
        pytest.skip(f"no jail can be made here: {facts.problem}; {facts.fix}")


def limits(**fields: int) -> JailLimits:
    return JailLimits(**fields)


__all__ = ["HostError", "Rig", "host_or_skip", "limits", "take_away"]
