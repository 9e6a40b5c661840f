"""The interface that one agent CLI fills in: how to find it, how to start it in a jail, how to read its end.

One agent is one small file with one AgentProfile. Knows nothing of jails, gateways or runs beyond their addresses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.job import BROKER_PORT, GATEWAY_PORT, HOME

# Where an agent's program stands inside a jail, whatever its place on the host: that may be a directory that the jail
# uses itself, and its name is nobody's business in there.
PROGRAMS = "/opt/inbounds/agent"
# The kernel takes at most 131,072 bytes in one argument (MAX_ARG_STRLEN).
PROMPT_BYTES_MAX = 120_000
# What a person reads in a report; an agent's last words can be a novel.
SAID_CHARS_MAX = 16_000
# Structured output beyond this is read at its end only: the result comes last.
OUTPUT_BYTES_MAX = 8 << 20

# The name that the broker's tools go by inside an agent.
MCP_NAME = "inbounds"


@dataclass(frozen=True, slots=True)
class AgentTask:
    """What one iteration asks of an agent; paths and addresses are those inside the jail."""

    prompt: str
    model: str
    token: str
    workspace: str
    gateway_url: str = f"http://127.0.0.1:{GATEWAY_PORT}"
    broker_url: str = f"http://127.0.0.1:{BROKER_PORT}"
    home: str = HOME
    programs: str = PROGRAMS
    turns_max: int = 200
    # A reply's ceiling, asked for by the agent itself so that the gateway's worst case stays small.
    output_tokens_max: int = 16_000

    def __post_init__(self) -> None:
        """Refuse a prompt that no argument can carry."""
        size = len(self.prompt.encode())
        if size > PROMPT_BYTES_MAX or "\0" in self.prompt:
            raise OperatorError(f"a prompt of {size} bytes", expected=f"text of at most {PROMPT_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class AgentLaunch:
    """How to start it: the environment is complete, files go below HOME, binds are (host, jail) and read-only.

    `executables` are the paths inside the jail that must be executable besides the system's own.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    binds: tuple[tuple[str, str], ...] = ()
    executables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Install:
    """An agent found on this host. `path` is the program itself with every link resolved, `format` what it speaks.

    `sha256` is of the program, or of the list of programs where there are several.
    """

    name: str
    version: str
    path: str
    sha256: str
    format: str


@dataclass(frozen=True, slots=True)
class AgentOutcome:
    """What an agent says of its end: never evidence, as the tree is judged by itself.

    `refused` means that the gateway's limits ended it; `said` is its last message, `detail` why it is not ok.
    """

    ok: bool
    said: str
    refused: bool = False
    detail: str = ""


class AgentProfile(Protocol):
    """One agent CLI."""

    name: str
    format: str

    def find(self, search_path: Sequence[Path]) -> Install | None:
        """Look for it in these directories, then where its installers put it."""
        ...

    def digest(self, program: Path) -> str:
        """Hash what `find` hashed: the program, and those that it starts and that come with it."""
        ...

    def launch(self, install: Install, task: AgentTask) -> AgentLaunch:
        """Say how to start it on a task."""
        ...

    def read(self, stdout: bytes, stderr: bytes, exit_code: int) -> AgentOutcome:
        """Read its end from its structured output: exit codes lie."""
        ...

    def problem(self, home: Path, *, has_key: bool) -> str:
        """Say why it can't run unattended here, or "": a subscription login can't be metered or handed to a gateway."""
        ...


def environment(task: AgentTask) -> dict[str, str]:
    """Give what every agent's environment begins with; nothing is inherited."""
    return {
        "HOME": task.home,
        "PATH": "/opt/inbounds/env/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",  # noqa: S108 - the jail's own, private to it
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/sh",
        "NO_COLOR": "1",
        "CI": "1",
    }


def shortened(text: str) -> str:
    """Cut an agent's words to what a report shows."""
    return text if len(text) <= SAID_CHARS_MAX else text[:SAID_CHARS_MAX] + " [cut]"
