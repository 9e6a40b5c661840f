"""What a judge asks to have run in a jail, and what came back (ARCHITECTURE, step 7).

Judges are pure: they make a Job from facts and a Verdict from a JobResult; the run loop executes the job. Standard
library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Where things stand inside every jail; one place, so that plans, agents and judges agree.
WORK = "/work"  # the repository root as the jail sees it; a thread "billing" is /work/billing
OUT = "/out"  # a judge's output directory, writable, read back by the loop
LAYER = "/opt/inbounds/env"  # the dependency layer, read-only
HOME = "/home/agent"  # private, size-limited, gone with the jail
GATEWAY_PORT = 8100  # 127.0.0.1 inside the jail; accepted on by the gateway outside
BROKER_PORT = 8101  # 127.0.0.1 inside the jail; accepted on by the tool broker outside
RESOLVER_PORT = 53  # 127.0.0.1 UDP inside the jail; every name asked for is recorded and refused


@dataclass(frozen=True, slots=True)
class Job:
    """One command in a jail of `role` over a clean checkout of `tree` at WORK (writable copy, thrown away).

    `restore` maps repository paths to git blob ids that replace what the tree has (acceptance tests, M5/O6).
    `outputs` are file names expected below OUT; each is read back up to `output_bytes_max` bytes.
    """

    judge: str
    role: str
    argv: tuple[str, ...]
    tree: str
    cwd: str = WORK
    env: Mapping[str, str] = field(default_factory=dict)
    restore: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)  # name below /job (read-only) -> content
    outputs: tuple[str, ...] = ()
    deadline_ms: int = 600_000
    output_bytes_max: int = 32 << 20


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended; `reason` is exited, killed, deadline or failed; outputs missing from the map did not exist.

    Everything in here was written inside a jail by code that an agent may have changed: untrusted bytes.
    """

    reason: str
    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    outputs: Mapping[str, bytes]
    ms: int
