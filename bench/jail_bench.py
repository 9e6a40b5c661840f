"""How fast a jail starts against bare bubblewrap, and the command line against a peer's, as ratios of one run.

`python bench/jail_bench.py [--rounds N] [--json FILE] [--without-peer]`: medians in milliseconds, measured in turn,
with the load while they were. Sealed jails are real ones; the program in them is 200 bytes of machine code.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from inbounds.sandbox import layout
from inbounds.sandbox.host import bubblewrap, interpreter_prefix
from inbounds.sandbox.identity import Identity, identity
from inbounds.sandbox.jail import Jail, drop_spare, keep_spare, spawn
from inbounds.sandbox.spec import Bind, JailSpec

BAR_SPARE, BAR_STANDING, BAR_PEER, BAR_HELP_MS = 2.5, 1.5, 4.0, 150
IDLE_SECONDS = 0.4  # what a run has between two jails at the least: an agent's turn takes seconds
TINY = "/opt/tiny"
PEER = "@anthropic-ai/sandbox-runtime@0.0.83"
INSTALL_SECONDS_MAX, RUN_SECONDS_MAX = 300, 60

# Programs that say when their first instruction ran: clock_gettime(CLOCK_MONOTONIC), write to stdout, exit 0.
CODE = {
    "x86_64": (
        62,
        "4883ec10 bf01000000 4889e6 b8e4000000 0f05 bf01000000 4889e6 ba10000000 b801000000 0f05 31ff b83c000000 0f05",
    ),
    "aarch64": (
        183,
        "ff4300d1 200080d2e1030091280e80d2010000d4 200080d2e1030091020280d2080880d2010000d4 000080d2a80b80d2010000d4",
    ),
}


def make_tiny(path: Path) -> None:
    """Write the smallest static program for this machine."""
    machine, text = CODE[platform.machine()]
    code, base, offset = bytes.fromhex(text.replace(" ", "")), 0x400000, 64 + 56
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = offset + len(code)
    path.write_bytes(head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code)
    path.chmod(0o755)


def now() -> int:
    """Nanoseconds of the clock that the program reads."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def since(begin: int, told: bytes) -> float:
    """Milliseconds from `begin` to the program's first instruction."""
    seconds, nanoseconds = struct.unpack("qq", told)
    return float(seconds * 10**9 + nanoseconds - begin) / 1e6


class Bench:
    """One scratch directory and the ways to start the same program with the same binds."""

    def __init__(self, scratch: Path) -> None:
        """Make the program and a workspace."""
        self.who: Identity = identity("bench")
        self.scratch = scratch
        self.tool, self.work = scratch / "tool", scratch / "work"
        for directory in (self.tool, self.work):
            directory.mkdir()
        scratch.chmod(0o755)
        os.chown(self.work, self.who.uid, self.who.gid)
        make_tiny(self.tool / "tiny")
        self.binds = (Bind(str(self.work), "/work", writable=True), Bind(str(self.tool), TINY, executable=True))
        self.spec = JailSpec(role="coder", argv=(f"{TINY}/tiny",), cwd="/", binds=self.binds, executables=(TINY,))
        self.stands: Jail | None = None

    def bare(self) -> float:
        """Bubblewrap alone: every namespace, the same mounts; no Landlock, seccomp, limit or check."""
        prefix = interpreter_prefix()
        argv = [bubblewrap().path, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
        argv += ["--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]
        argv += [*layout._system_arguments(), "--proc", "/proc", "--dev", "/dev"]  # noqa: SLF001  # the same mounts
        for path in ("/dev/shm", "/tmp", "/home/agent"):  # noqa: S108  # inside
            argv += ["--tmpfs", path]
        argv += ["--ro-bind", prefix, prefix] if prefix else []
        for bind in self.binds:
            argv += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
        begin = now()
        done = subprocess.run([*argv, "--", f"{TINY}/tiny"], stdout=subprocess.PIPE, check=True, timeout=30)
        return since(begin, done.stdout)

    def _told(self, jail: Jail, begin: int) -> float:
        ended = jail.wait(30)
        assert ended is not None, "it did not end"
        assert ended.exit_code == 0, ended
        return since(begin, (self.scratch / "stdout").read_bytes())

    def new(self) -> float:
        """A new sealed jail, from the call to the program's first instruction."""
        begin = now()
        jail = spawn(self.spec, identity=self.who, scratch=self.scratch)
        jail.go()
        taken = self._told(jail, begin)
        jail.kill()
        return taken

    def standing(self) -> float:
        """The next command of a jail that stands."""
        if self.stands is None:
            spec = JailSpec(role="coder", argv=("true",), cwd="/", binds=self.binds, executables=(TINY,), standing=True)
            self.stands = spawn(spec, identity=self.who, scratch=self.scratch)
            self.stands.go()
            self.stands.wait(30)
        begin = now()
        self.stands.run_again((f"{TINY}/tiny",), {}, "/")
        return self._told(self.stands, begin)

    def round(self) -> dict[str, float]:
        """Each way once; the spare is made while nothing else happens, as between an agent's turns."""
        found = {"bubblewrap": self.bare(), "new, cold": self.new(), "standing": self.standing()}
        keep_spare(self.who)
        time.sleep(IDLE_SECONDS)
        found["new, spare ready"] = self.new()
        drop_spare()
        return found

    def close(self) -> None:
        """Leave nothing."""
        if self.stands:
            self.stands.kill()


def starts(rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first instruction, by way."""
    with (
        tempfile.TemporaryDirectory(prefix="inbounds-bench-") as name,
        contextlib.closing(Bench(Path(os.path.realpath(name)))) as bench,
    ):
        bench.round()
        found = [bench.round() for _ in range(rounds)]
    return {name: [one[name] for one in found] for name in found[0]}


def process(argv: list[str], cwd: str, env: dict[str, str]) -> float:
    """A whole process, in milliseconds; RuntimeError with what it said where it failed."""
    begin = now()
    done = subprocess.run(
        argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    taken = (now() - begin) / 1e6
    if done.returncode:
        raise RuntimeError(f"{argv[0]} gave {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return taken


def peer(cache: Path) -> list[str]:
    """The peer's command line, installed below `cache`; RuntimeError where it can't be."""
    npm = shutil.which("npm")
    missing = [name for name in ("npm", "node", "socat", "rg") if not shutil.which(name)]
    if npm is None or missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}")
    program = cache / "node_modules" / ".bin" / "srt"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [npm, "install", "--no-save", "--prefix", str(cache), PEER], check=True, capture_output=True, cwd=cache,
            timeout=INSTALL_SECONDS_MAX,
        )  # fmt: skip
    beside = cache / "bin" / "bwrap"
    if not beside.is_symlink():  # it takes the first in PATH: the same binary as ours
        beside.parent.mkdir(exist_ok=True)
        beside.symlink_to(bubblewrap().path)
    return [str(program), "true"]


@contextlib.contextmanager
def repository() -> Iterator[tuple[str, dict[str, str]]]:
    """A small repository with contracts in it, and an environment with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="inbounds-bench-") as name:
        place = Path(os.path.realpath(name))
        env = {**os.environ, "HOME": str(place / "home"), "INBOUNDS_HOME": str(place / "state")}
        env["INBOUNDS_HOST_SOCKET"] = str(place / "none.sock")  # rootless as the peer, whatever is installed
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode beside it
        top = place / "repository"
        for directory in (place / "home", top / "tests"):
            directory.mkdir(parents=True)
        (top / "a.py").write_text("def f():\n    return 1\n")
        (top / "tests" / "test_a.py").write_text("from a import f\n\ndef test_f():\n    assert f() == 1\n")
        git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
            process([*git, *arguments], str(top), env)
        process([inbounds(), "init", "."], str(top), env)
        for arguments in (["add", "-A"], ["commit", "-qm", "b"]):
            process([*git, *arguments], str(top), env)
        yield str(top), env


def inbounds() -> str:
    """The command beside this interpreter."""
    return str(Path(sys.executable).with_name("inbounds"))


def commands(rounds: int, cache: Path, *, with_peer: bool) -> tuple[dict[str, list[float]], str]:
    """Milliseconds of whole processes by name, and why the peer has none."""
    why, theirs = "", []
    with repository() as (top, env):
        settings = Path(env["HOME"]) / ".srt-settings.json"
        rules = {"denyRead": [], "allowWrite": ["."], "denyWrite": []}
        settings.write_text(json.dumps({"network": {"allowedDomains": [], "deniedDomains": []}, "filesystem": rules}))
        try:
            theirs = peer(cache) if with_peer else []
            env["PATH"] = f"{cache / 'bin'}:{env['PATH']}"
            if theirs:
                process(theirs, top, env)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            why, theirs = str(error), []
        ways = {"inbounds shell . -- true": [inbounds(), "shell", ".", "--", "true"]}
        ways["inbounds --help"] = [inbounds(), "--help"]
        ways |= {"sandbox-runtime: srt true": theirs} if theirs else {}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, argv in ways.items():
                taken = process(argv, top, env)
                if turn:  # the first one writes bytecode and fills caches
                    found[name].append(taken)
    return found, why


def show(found: dict[str, list[float]], against: str, *, times: bool) -> dict[str, dict[str, float]]:
    """Print a table; the figures."""
    figures = {}
    base = statistics.median(found[against]) if against in found else 0.0
    for name, taken in found.items():
        middle = statistics.median(taken)
        ratio = (base / middle if times else middle / base) if base else 0.0
        figures[name] = {"median_ms": round(middle, 2), "min_ms": round(min(taken), 2), "ratio": round(ratio, 2)}
        shown = f"{ratio:6.2f} x" if base else ""
        print(f"{name:<28} median {middle:7.1f} ms   least {min(taken):7.1f} ms {shown}")
    return figures


def verdict(what: str, holds: bool, bar: str) -> None:
    """One line on a bar."""
    print(f"the bar: {what} {bar}: {'met' if holds else 'NOT met'}")


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench/srt"))
    parser.add_argument("--without-peer", action="store_true", help="install and run no other sandbox")
    asked = parser.parse_args()
    loads = [os.getloadavg()[0]]
    print(f"to the program's first instruction, {asked.rounds} rounds, {bubblewrap().version}, user {os.getuid()}")
    started = show(starts(asked.rounds), "bubblewrap", times=False)
    verdict("a new jail, its spare ready", started["new, spare ready"]["ratio"] <= BAR_SPARE, f"≤ {BAR_SPARE} x")
    verdict("the next command of a standing jail", started["standing"]["ratio"] <= BAR_STANDING, f"≤ {BAR_STANDING} x")
    loads.append(os.getloadavg()[0])
    figures: dict[str, object] = {"starts": started}
    try:
        taken, why = commands(max(5, asked.rounds // 4), asked.cache.absolute(), with_peer=not asked.without_peer)
    except RuntimeError as error:
        print(f"the command line was not measured: {error}")
        figures["commands"] = {"not_measured": str(error)}
    else:
        print("whole processes, in turn; how many times faster than the peer")
        commanded = show(taken, "sandbox-runtime: srt true", times=True)
        figures["commands"] = commanded
        verdict("inbounds --help", commanded["inbounds --help"]["median_ms"] < BAR_HELP_MS, f"< {BAR_HELP_MS} ms")
        if "sandbox-runtime: srt true" in taken:
            ratio = commanded["inbounds shell . -- true"]["ratio"]
            verdict("inbounds shell -- true", ratio >= BAR_PEER, f"≥ {BAR_PEER} x faster than srt")
        else:
            print(f"sandbox-runtime was not measured: {why or '--without-peer'}")
    loads.append(os.getloadavg()[0])
    print(
        f"load (1 minute) before, between, after: {', '.join(f'{load:.1f}' for load in loads)}; {os.cpu_count()} CPUs"
    )
    if asked.json:
        head = {"python": platform.python_version(), "kernel": platform.release(), "load": loads}
        asked.json.write_text(json.dumps({**head, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
