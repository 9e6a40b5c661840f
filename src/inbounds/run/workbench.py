"""Where a judge's job is carried out: a clean checkout, a jail of the job's role, outputs read back as untrusted bytes.

Everything it makes lies below one scratch directory and is deleted when the job is over. Judges nothing.
"""

import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.contracts.job import OUT, WORK, Job, JobResult
from inbounds.run.crew import Crew
from inbounds.run.mounts import layer_binds
from inbounds.sandbox.gpu import Device
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.spec import Bind, JailLimits, JailSpec
from inbounds.store.descent import delete_tree
from inbounds.store.export import Owner
from inbounds.store.store import Store

JOB_DIRECTORY = "/job"
OUTPUT_BYTES_MAX = 4 << 20  # what is kept of a job's stdout and stderr, each


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every job of one run shares; `prefixes` are the repository paths that a jail of this thread may see."""

    store: Store
    scratch: Path
    crew: Crew
    identity: Identity
    prefixes: tuple[str, ...]
    limits: JailLimits
    layer: Path | None = None
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    build: tuple[str, ...] = ()
    _count: list[int] = field(default_factory=lambda: [0])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, job: Job) -> JobResult:
        """Carry one job out; HostError if the host cannot, never for what the job itself does."""
        with self._lock:
            self._count[0] += 1
            directory = self.scratch / f"{self._count[0]}-{job.judge}"
        try:
            directory.mkdir(mode=0o700, parents=True)
            return self._within(directory, job)
        except OSError as error:
            raise HostError(f"the job {job.judge} cannot be set up: {error.strerror}", where=str(directory)) from error
        finally:
            if directory.exists():
                delete_tree(str(directory))

    def _within(self, directory: Path, job: Job) -> JobResult:
        work, out, files = directory / "work", directory / "out", directory / "job"
        for path in (work, out, files):
            path.mkdir(mode=0o755)
            self._give(path)
        tree = self.store.replace(job.tree, dict(job.restore)) if job.restore else job.tree
        owner = Owner(self.identity.uid, self.identity.gid) if os.geteuid() == 0 else None
        self.store.export(tree, str(work), self.prefixes, owner)
        for name, content in job.files.items():
            (files / name).write_bytes(content)
        ended = self.crew.run(
            JailSpec(
                role=job.role,
                argv=job.argv,
                cwd=job.cwd,
                env={"LANG": "C.UTF-8", **self.env, **job.env},
                binds=(
                    Bind(str(work), WORK, writable=True),
                    Bind(str(out), OUT, writable=True),
                    Bind(str(files), JOB_DIRECTORY),
                    *layer_binds(self.layer),
                    *self.binds,
                ),
                limits=self.limits,
                deadline_ms=job.deadline_ms,
                local_servers=job.role == "tester",  # test suites start servers of their own on the jail's loopback
                devices=self.devices if job.role == "tester" else (),
                build=self.build if job.role == "tester" else (),
            ),
            directory,
        )
        return JobResult(
            reason=ended.reason,
            exit_code=ended.exit_code,
            signal=ended.signal,
            stdout=read_limited(directory / "stdout", OUTPUT_BYTES_MAX) or b"",
            stderr=read_limited(directory / "stderr", OUTPUT_BYTES_MAX) or b"",
            outputs=_outputs(out, job),
            ms=ended.ms,
        )

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.identity.uid, self.identity.gid)


def _outputs(directory: Path, job: Job) -> dict[str, bytes]:
    read = {name: read_limited(directory / name, job.output_bytes_max) for name in job.outputs}
    return {name: content for name, content in read.items() if content is not None}


def read_limited(path: Path, limit: int) -> bytes | None:
    """A regular file that a jail wrote, up to `limit` bytes; None for a link, a device, a missing or too large one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = file.read(limit + 1)
    return content if len(content) <= limit else None
