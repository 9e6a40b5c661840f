"""A person at a terminal: an account of their own, the installed `inbounds`, a pseudo-terminal of 80 by 24.

The provider is the bundled model server, reached as any other: by the person's own gateway.yaml and key.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.modelserver.server import ModelServer
from inbounds.sandbox.hardened import PLACE

COLUMNS, ROWS = 80, 24
SECONDS_MAX = 240
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


def write(path: str, content: str) -> dict[str, Any]:
    """A model's call of the agent's own tool for writing."""
    return {"name": "write", "arguments": {"path": path, "content": content}}


def script(*turns: dict[str, Any], loop: bool = False) -> dict[str, Any]:
    """One conversation."""
    return {"conversations": [{"turns": list(turns), "loop": loop}]}


@dataclass
class Terminal:
    """A process with a pseudo-terminal as its controlling terminal; what it showed, without escapes."""

    process: "subprocess.Popen[bytes]"
    fd: int
    raw: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "")

    def until(self, pattern: str, seconds: float = SECONDS_MAX) -> str:
        """Read until it is shown; the text so far."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds} s in:\n{self.text}"
            if not self._read() and not re.search(pattern, self.text):
                raise AssertionError(f"ended with {self.process.wait(10)} before {pattern!r}:\n{self.text}")
        return self.text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self, seconds: float = SECONDS_MAX) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(10)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.fd], [], [], 0.2)
        if not ready:
            return True
        try:
            part = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody holds the other side any more
            return False
        self.raw += part
        return bool(part)


@dataclass
class Person:
    """Somebody with a HOME, a repository and the `inbounds` command."""

    command: Path
    home: Path
    repository: Path
    path: tuple[Path, ...] = ()
    state: Path | None = None
    terminals: list[Terminal] = field(default_factory=list)
    server: ModelServer | None = None

    @property
    def env(self) -> dict[str, str]:
        places = [*map(str, self.path), str(self.command.parent), "/usr/local/bin", "/usr/bin", "/bin"]
        env = {"HOME": str(self.home), "PATH": ":".join(places), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        kept = {name: os.environ[name] for name in ("PIP_CONFIG_FILE", "PIP_INDEX_URL", PLACE) if name in os.environ}
        return env | kept | ({"INBOUNDS_HOME": str(self.state)} if self.state else {})

    @property
    def state_directory(self) -> Path:
        return self.state or self.home / ".local" / "state" / "inbounds"

    def runs(self, *args: str, stdin: str | None = None, env: dict[str, str] | None = None,
             cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":  # fmt: skip
        """`inbounds` without a terminal."""
        return subprocess.run(
            [str(self.command), *args],
            cwd=cwd or self.repository,
            env=self.env | (env or {}),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def facts(self, *args: str) -> Any:
        """`inbounds … --json`, which must succeed."""
        done = self.runs(*args, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def starts(self, *args: str, stdout: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
        """`inbounds` in the background, in a process group of its own."""
        return subprocess.Popen(
            [str(self.command), *args],
            cwd=self.repository,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def types(self, *args: str, argv: tuple[str, ...] = ()) -> Terminal:
        """`inbounds` in a terminal of 80 by 24."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(
            [*(argv or (str(self.command),)), *args],
            cwd=self.repository,
            env=self.env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one ioctl, no threads here
        )
        os.close(theirs)
        self.terminals.append(Terminal(process, ours))
        return self.terminals[-1]

    def provider(
        self, played: dict[str, Any], name: str, formats: tuple[str, ...] = (), model: str = ""
    ) -> ModelServer:
        """Have a provider of that name play a script, and know it as a person does: gateway.yaml and a key on stdin."""
        if self.server is not None:
            self.server.stop()
        self.server = ModelServer(played).start()
        base = self.server.url if name == "anthropic" else f"{self.server.url}/v1"
        settings = self.home / ".config" / "inbounds" / "gateway.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        text = f"upstreams:\n  {name}:\n    base_url: {base}\n"
        text += f"    formats: [{', '.join(formats)}]\n" if formats else ""
        if model:
            text += f"models:\n  {model}:\n    upstream: {name}\n    output_tokens_max: 8000\n"
            text += "    price: {input_micro_usd_per_mtok: 3000000, output_micro_usd_per_mtok: 15000000}\n"
        settings.write_text(text, encoding="utf-8")
        done = self.runs("key", "add", name, stdin=self.server.key + "\n")
        assert done.returncode == 0, done.stderr
        assert self.server.key not in done.stdout + done.stderr
        return self.server

    def journal(self, run_id: str) -> list[dict[str, Any]]:
        path = self.state_directory / "runs" / run_id / "journal.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def data(self, run_id: str, kind: str) -> list[dict[str, Any]]:
        return [record["data"] for record in self.journal(run_id) if record["kind"] == kind]

    def last(self) -> str:
        return max(path.name for path in (self.state_directory / "runs").iterdir())

    def close(self) -> None:
        """End what this person started, runs included."""
        for terminal in self.terminals:
            if terminal.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(terminal.process.pid, signal.SIGKILL)
                terminal.process.wait(10)
            os.close(terminal.fd)
        if self.state_directory.exists():
            self.runs("stop", "--all", "--here")
        if self.server is not None:
            self.server.stop()


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something; what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def screens(text: str) -> Iterator[str]:
    """Lines as a terminal of this width shows them."""
    for line in text.split("\n"):
        yield from [line[start : start + COLUMNS] for start in range(0, len(line), COLUMNS)] or [""]
