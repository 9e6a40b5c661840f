"""What work costs inside a jail against outside: a test suite, a compile, `git status`, 100,000 file opens.

`python bench/work_bench.py [--rounds N] [--json FILE]`: each piece of work times itself, so that the jail's start is
not in it, and runs outside and inside in turn, on the same files and with the same interpreter. No file events. The
jail is not nice here, so that on a busy machine both have the same share; CPU time is shown beside the wall clock's.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from inbounds.contracts.job import HOME
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import Bind, JailLimits, JailSpec

BAR = 1.05
OPENS = 100_000
FILES, TESTS, FUNCTIONS = 1_000, 200, 1_000
SECONDS_MAX = 600

# Runs a command or opens files; the last line of stdout is the seconds that it took, by the clock and of CPU.
TIMER = f"""
import os, resource, subprocess, sys, time
what = sys.argv[1:]
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
begin, spent = time.perf_counter(), cpu()
if what[0] == "opens":
    names = [entry.path for entry in os.scandir("files")]
    for n in range({OPENS}):
        os.close(os.open(names[n % len(names)], os.O_RDONLY))
else:
    subprocess.run(what, check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - begin, cpu() - spent)
"""

SUITE = """
import json, os, tempfile, unittest

class Suite(unittest.TestCase):
    pass

def one(n):
    def test(self):
        with tempfile.TemporaryDirectory() as name:
            path = os.path.join(name, "x")
            with open(path, "w") as file:
                json.dump({str(k): [k] * 40 for k in range(200)}, file)
            with open(path) as file:
                self.assertEqual(len(json.load(file)), 200)
        self.assertEqual(sum(sorted(range(4000, 0, -1))), 8002000)
    return test

for n in range(%d):
    setattr(Suite, f"test_{n}", one(n))
"""


def fill(work: Path) -> dict[str, list[str]]:
    """A repository with something to do in it; name -> command, in the order of the issue."""
    (work / "files").mkdir()
    for n in range(FILES):
        (work / "files" / f"{n}.txt").write_text(f"{n}\n")
    (work / "suite.py").write_text(SUITE % TESTS)
    lines = [
        f"int f{n}(int a) {{ int s = 0; for (int i = 0; i < a; i++) s += i * {n}; return s; }}"
        for n in range(FUNCTIONS)
    ]
    (work / "big.c").write_text("\n".join([*lines, "int main(void) { return f1(3) == 0; }"]))
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], cwd=work, check=True)
    ways = {"test suite": [jail_python(), "-m", "unittest", "-q", "suite"]}
    compiler = shutil.which("gcc", path="/usr/bin") or shutil.which("cc", path="/usr/bin")
    if compiler:
        ways["compile"] = [compiler, "-O1", "-c", "big.c", "-o", "big.o"]
    ways["git status"] = ["/usr/bin/git", "status", "--short"]
    ways[f"{OPENS:,} opens"] = ["opens"]
    return ways


Taken = tuple[float, float]  # seconds by the clock, seconds of CPU


def taken(stdout: bytes) -> Taken:
    """The last line's two figures."""
    clock, cpu = stdout.split()[-2:]
    return float(clock), float(cpu)


def outside(work: Path, argv: list[str], env: dict[str, str]) -> Taken:
    """Without a jail; as this user, because the jail's may not reach this interpreter."""
    told = subprocess.run(
        [jail_python(), "-I", "-S", "-c", TIMER, *argv], cwd=work, env=env, check=True, capture_output=True,
        timeout=SECONDS_MAX, start_new_session=True,  # as inside: the kernel shares CPUs between sessions
    )  # fmt: skip
    return taken(told.stdout)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="inbounds-bench-") as name:
        top = Path(os.path.realpath(name))
        top.chmod(0o755)
        yield top


def measure(rounds: int) -> dict[str, list[tuple[Taken, Taken]]]:
    """Name -> what each pair of runs took (outside, inside)."""
    who = identity("bench")
    with place() as top:
        work = top / "work"
        work.mkdir()
        ways = fill(work)
        env = {"PATH": "/usr/bin:/bin", "HOME": str(top / "home"), "LANG": "C.UTF-8", "TMPDIR": str(top / "tmp")}
        for directory in ("home", "tmp"):
            (top / directory).mkdir()
        if who.dropped:
            for path in (work, *work.rglob("*"), top / "home", top / "tmp"):
                os.chown(path, who.uid, who.gid)
        # files of another user are git's business only where git would run what they say
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        binds = (Bind(str(work), "/work", writable=True), Bind(str(top / "tmp"), "/opt/tmp", writable=True))
        found: dict[str, list[tuple[Taken, Taken]]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, argv in ways.items():
                bare = outside(work, argv, env)
                spec = JailSpec(
                    role="bench", argv=(jail_python(), "-I", "-S", "-c", TIMER, *argv), cwd="/work", binds=binds,
                    env={**env, "TMPDIR": "/opt/tmp", "HOME": HOME}, deadline_ms=SECONDS_MAX * 1000,
                    limits=JailLimits(nice=0),
                )  # fmt: skip
                jail = spawn(spec, identity=who, scratch=top)
                jail.go()
                ended = jail.wait()
                assert ended is not None and ended.exit_code == 0, (ended, (top / "stderr").read_text())  # noqa: PT018
                if turn:  # the first one fills caches
                    found[name].append((bare, taken((top / "stdout").read_bytes())))
    return found


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    figures = {}
    for name, pairs in measure(asked.rounds).items():
        # of each pair, since the load changes from one to the next
        clock, cpu = (statistics.median(inside[n] / bare[n] for bare, inside in pairs) for n in (0, 1))
        middle = [statistics.median(pair[n][0] for pair in pairs) for n in (0, 1)]
        figures[name] = {
            "outside_s": round(middle[0], 4), "inside_s": round(middle[1], 4), "ratio": round(clock, 3),
            "cpu_ratio": round(cpu, 3),
        }  # fmt: skip
        met = "met" if max(clock, cpu) <= BAR else "NOT met"  # a busy machine's clock is as much about others
        times = f"outside {middle[0]:7.3f} s   inside {middle[1]:7.3f} s"
        print(f"{name:<14} {times}   {clock:5.3f} x (CPU {cpu:5.3f} x)   ≤ {BAR} x: {met}")
    load = [before, os.getloadavg()[0]]
    print(f"load (1 minute) before and after: {load[0]:.1f}, {load[1]:.1f}; {os.cpu_count()} CPUs; user {os.getuid()}")
    if asked.json:
        head = {"python": sys.version.split()[0], "kernel": platform.release(), "load": load}
        asked.json.write_text(json.dumps({**head, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
