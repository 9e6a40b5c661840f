"""What must not change outside a jail while a hostile agent runs, and whether it did; with a positive control.

Looks before and after: the person's repository, traps on the host's loopback and an abstract socket, processes, mounts.
"""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from inbounds.contracts.errors import HostError

CONTROL_SECONDS_MAX = 60


def fingerprint(repository: Path) -> str:
    """One hash over every file of the repository, its .git's refs and HEAD included."""
    total = hashlib.sha256()
    for place, directories, names in sorted(os.walk(repository)):
        directories.sort()
        if "/.git/objects" in place:
            continue
        for name in sorted(names):
            path = Path(place) / name
            total.update(os.fsencode(path.relative_to(repository)) + b"\0")
            total.update(path.read_bytes() if not path.is_symlink() else os.fsencode(os.readlink(path)))
    return total.hexdigest()


def mounts_of(word: str) -> list[str]:
    """Mount points of this host whose line holds `word`."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        return [line.split()[1] for line in file if word in line]


def processes_of(word: str) -> list[int]:
    """Living processes of this host whose command line or environment names `word` (a run's id)."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        for part in ("cmdline", "environ", "cwd"):
            try:
                place = f"/proc/{name}/{part}"
                content = os.readlink(place).encode() if part == "cwd" else Path(place).read_bytes()
            except OSError:
                continue  # it ended, or is not ours to look at
            if word.encode() in content:
                found.append(int(name))
                break
    return found


@dataclass(slots=True)
class Trap:
    """Listeners on the host's loopback and an abstract socket: whoever connects to them got out of a jail."""

    caught: list[str] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    def set(self, name: str) -> int:
        """Begin to listen; returns the TCP port. `name` makes the abstract socket's name."""
        tcp = socket.create_server(("127.0.0.1", 0))
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(f"\0inbounds-demo-{name}")
        local.listen()
        for trap, what in ((tcp, "host loopback"), (local, "abstract socket")):
            self._sockets.append(trap)
            threading.Thread(target=self._wait, args=(trap, what), daemon=True).start()
        return int(tcp.getsockname()[1])

    def _wait(self, trap: socket.socket, what: str) -> None:
        while True:
            try:
                peer, _ = trap.accept()
            except OSError:
                return
            self.caught.append(f"something connected to a trap on the {what}")
            peer.close()

    def close(self) -> None:
        """Stop listening."""
        for trap in self._sockets:
            trap.close()


def control(scratch: Path) -> list[str]:
    """Run the hostile agent outside any jail, in a scratch directory: the steps that succeed there (it must be some).

    What it would call on the network are addresses reserved for documentation, so only its file steps can succeed.
    """
    thread = scratch / "billing"
    for place in (thread / "tests", scratch / "shipping", scratch / "shared", scratch / "home" / ".aws"):
        place.mkdir(parents=True)
    for path in ("billing/tests/test_invoice.py", "shipping/rates.py", "shared/money.py", "home/.aws/credentials"):
        (scratch / path).write_text("# as it was\n", encoding="utf-8")
    source = resources.files("inbounds.demo") / "hostile_agent.py"
    with resources.as_file(source) as program:
        steps = ["other-thread", "shared-interface", "weaken-tests", "credentials"]
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(program), "0", *steps],
            cwd=thread,
            env={"HOME": str(scratch / "home")},
            capture_output=True,
            timeout=CONTROL_SECONDS_MAX,
            check=False,
        )
    if done.returncode:
        raise HostError(f"the positive control failed: {done.stderr.decode('utf-8', 'replace')[-300:]}")
    import json

    said = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted({str(line["step"]) for line in said if line["outcome"] == "done"})
