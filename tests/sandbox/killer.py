"""Kills a supervisor at a chosen moment of its jail's set-up and looks for survivors.

Run as a program: `killer.py {cold|warm|spare|control} FIRST_MS LAST_MS`; control starts a process that does survive. It is the subreaper of everything below it, so that whatever
outlives the supervisor becomes its child, wherever it hides; no child left means that no process is left.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
SURVIVAL_SECONDS_MAX = 5

SUPERVISOR = """
import sys, tempfile, os
from pathlib import Path
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import keep_spare, spawn
from inbounds.sandbox.spec import JailSpec, Listener
who = identity()
spec = JailSpec(role="t", argv=("sh", "-c", "setsid sleep 300 & sleep 300"), cwd="/",
                listeners=(Listener("gateway", "tcp", 8100),))
scratch = Path(sys.argv[2])
def one():
    jail = spawn(spec, identity=who, scratch=scratch)
    jail.go()
    return jail
kept = [one()] if sys.argv[1] == "warm" else []
if sys.argv[1] == "control":
    import subprocess
    subprocess.Popen(["sleep", "300"], start_new_session=True)
if sys.argv[1] == "spare":
    from inbounds.sandbox import start
    start.LATER_SECONDS = 0.0  # the next one is made while this one is taken
    keep_spare(who)
    kept.append(one())
os.write(1, b"now")
kept.append(one())
import time
time.sleep(300)
"""


def once(mode: str, delay_ms: float, scratch: str) -> int:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, mode, scratch], stdout=subprocess.PIPE)
    assert supervisor.stdout
    if supervisor.stdout.read(3) != b"now":
        raise SystemExit("the supervisor did not come up")
    time.sleep(delay_ms / 1000)
    supervisor.kill()
    supervisor.wait()
    until = time.monotonic() + SURVIVAL_SECONDS_MAX
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
        except ChildProcessError:
            return 0
    left = [int(n) for n in os.listdir("/proc") if n.isdigit() and _parent(n) == os.getpid()]
    for pid in left:
        print("left:", Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")[:200])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(left)


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def main() -> None:
    import tempfile

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mode, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="inbounds-killer-") as scratch:
        for delay in range(first, last):
            survivors += once(mode, delay, scratch)
    print(f"kills {last - first} survivors {survivors}")


if __name__ == "__main__":
    main()
