"""What one half of a case plays in: a directory outside the workspace, a home with a secret, listeners, a victim.

The control and the attack get one each, alike. It looks before and after. Knows nothing of jails or of outcomes.
"""

import hashlib
import os
import secrets
import stat
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inbounds.drill.holdings import Holdings
from inbounds.drill.listening import Listening
from inbounds.sandbox.host import jail_python
from inbounds.store.descent import delete_tree

ENTRIES_MAX = 5_000  # of a directory that is looked at; a case makes a handful, a bomb is cut off here
HASHED_BYTES_MAX = 1 << 20  # of one file; a larger one is told by its size
VICTIM_READY_S = 20
# Where credentials stand in a home directory: of clouds, of git, of browsers, of ourselves.
CREDENTIALS = (
    ".aws/credentials", ".netrc", ".ssh/id_ed25519", ".git-credentials", ".config/gh/hosts.yml", ".kube/config",
    ".docker/config.json", ".gnupg/private-keys-v1.d/key", ".mozilla/firefox/default/logins.json", ".bash_history",
    ".config/google-chrome/Default/Login Data", ".local/state/inbounds/keys/journal.key",
)  # fmt: skip
VICTIM = "import sys; secret = sys.argv.pop(); sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"


@dataclass(slots=True)
class Arena:
    """Use as a context. `host` is what HOST says; `directory` is its own, removed at the end."""

    directory: Path
    needs: tuple[str, ...]
    host: dict[str, Any] = field(default_factory=dict)
    secret: str = ""
    scratch: Path = Path()
    outside: Path = Path()
    stopping: threading.Event = field(default_factory=threading.Event)  # the drill ends: end what runs, at once
    environment: dict[str, str] = field(default_factory=dict)
    _listening: Listening | None = None
    _holdings: Holdings | None = None
    _victim: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make everything that the case needs."""
        token = secrets.token_hex(8)
        self.secret = f"inbounds-drill-{secrets.token_hex(16)}"
        # everybody's to write: what keeps an attack out is the jail alone, not whose directory it is
        for name, mode in (("", 0o711), ("outside", 0o777), ("scratch", 0o777), ("home", 0o755)):
            made = self.directory / name
            made.mkdir(mode=mode, parents=True)
            made.chmod(mode)
        self.outside, self.scratch = self.directory / "outside", self.directory / "scratch"
        (self.outside / "canary").write_text("untouched\n")
        (self.outside / "canary").chmod(0o666)
        self.host = {"outside": str(self.outside), "home": str(self.directory / "home"), "token": token}
        try:
            self._listening = Listening(self.needs, str(self.outside), token, f"{self.secret}\n".encode())
            self._holdings = Holdings(self.needs, self.directory, token, self.secret)
            self.environment = self._holdings.environment
            self.host |= self._listening.offers | self._holdings.offers
            if "secret" in self.needs:
                self._hide()
            if "victim" in self.needs:
                self._start_victim()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing."""
        self.close()

    def close(self) -> None:
        """End the listeners and the victim, and delete the directory."""
        if self._listening:
            self._listening.close()
            self._listening = None
        if self._holdings:
            self._holdings.close()
            self._holdings = None
        if self._victim:
            self._victim.kill()
            self._victim.communicate()
            self._victim = None
        delete_tree(str(self.directory))

    def _hide(self) -> None:
        """The secret, where credentials stand in a home directory."""
        text = f"[default]\naws_secret_access_key = {self.secret}\n"
        for name in CREDENTIALS:
            path = self.directory / "home" / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)
        self.host["secret_path"] = str(self.directory / "home/.aws/credentials")

    def _start_victim(self) -> None:
        """A process of the operator's with the secret in its environment, arguments and memory; it ends with us."""
        self._victim = subprocess.Popen(
            [jail_python(), "-I", "-S", "-c", VICTIM, self.secret],
            stdin=subprocess.PIPE,  # its end is the victim's
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"INBOUNDS_DRILL_SECRET": self.secret},
            cwd=str(self.outside),
            start_new_session=True,
        )
        assert self._victim.stdout
        self._victim.stdout.read(1)
        self.host["victim"] = self._victim.pid

    def look(self, work: Path | None) -> dict[str, Any]:
        """The keys of before and after that say how things stand now."""
        received = sum(one.received for one in (self._listening, self._holdings) if one)
        victim = self._victim
        return {
            "outside": listing(self.outside),
            "work": listing(work) if work else {},
            "received": received,
            "victim_alive": victim is not None and victim.poll() is None and not _stopped(victim.pid),
        }

    def leaked(self, *texts: str) -> bool:
        """Whether the case's secret shows in any of these, or in what reached a listener."""
        kept = self._listening.kept.decode("utf-8", "replace") if self._listening else ""
        return any(self.secret in text for text in (*texts, kept))


def listing(top: Path) -> dict[str, str]:
    """Relative name -> a digest of mode and content, or of a link's target; nothing is followed."""
    found: dict[str, str] = {}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(top / prefix) as entries:
                items = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found[prefix or "."] = f"unreadable: {error.strerror}"
            continue
        for item in items:
            if len(found) >= ENTRIES_MAX:
                found["…"] = "more"
                return found
            name = f"{prefix}{item.name}".encode("utf-8", "backslashreplace").decode()
            found[name] = _digest(item)
            if item.is_dir(follow_symlinks=False):
                waiting.append(f"{prefix}{item.name}/")
    return found


def _digest(item: "os.DirEntry[str]") -> str:
    try:
        info = item.stat(follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            return f"link to {os.readlink(item.path)!r}"
        mode = f"{info.st_mode:o}"
        if not stat.S_ISREG(info.st_mode):
            return mode
        if info.st_size > HASHED_BYTES_MAX:
            return f"{mode} {info.st_size} bytes"
        fd = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            content = hashlib.sha256(file.read(HASHED_BYTES_MAX)).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return f"{mode} {content}"


def _stopped(pid: int) -> bool:
    """Whether somebody has stopped it by a signal; asked twice, since a stop takes effect a moment later."""
    for _ in range(2):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state = file.read(4096).rpartition(b")")[2].split()[0]
        except OSError:
            return True
        if state in (b"T", b"t"):
            return True
        time.sleep(0.01)
    return False
