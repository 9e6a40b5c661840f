"""Runs a judge's Job as a plain process: judges are proven here with real tools; jails are proven elsewhere."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inbounds.contracts.job import Job, JobResult
from inbounds.judges import report, tests

# a place inside the jail, but never this very installation, which may stand below a directory of such a name
STANDS = re.compile(rf"(?<![\w/.-])(?!{re.escape(sys.prefix)})/(work|out|job)(?=[/:\"]|$)")
RunJob = Callable[[Job, Path], JobResult]


@pytest.fixture
def run_job_unboxed(tmp_path: Path) -> RunJob:
    count = 0

    def run(job: Job, checkout: Path) -> JobResult:
        nonlocal count
        count += 1
        base = tmp_path / f"job{count}"
        places = {"work": checkout, "out": base / "out", "job": base / "job"}
        for name in ("out", "job"):
            places[name].mkdir(parents=True)

        def rebase(text: str) -> str:
            return STANDS.sub(lambda m: str(places[m[1]]), text)

        for name, content in job.files.items():
            data = rebase(content.decode()).encode() if name.endswith(".json") else content
            (places["job"] / name).write_bytes(data)
        env = {"PATH": os.environ["PATH"], "HOME": str(base), **{k: rebase(v) for k, v in job.env.items()}}
        started = time.monotonic()
        try:
            done = subprocess.run(
                [rebase(a) for a in job.argv],
                cwd=rebase(job.cwd),
                env=env,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=job.deadline_ms / 1000,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return JobResult("deadline", -1, 9, late.stdout or b"", late.stderr or b"", {}, job.deadline_ms)
        outputs = {n: (places["out"] / n).read_bytes() for n in job.outputs if (places["out"] / n).exists()}
        ms = int((time.monotonic() - started) * 1000)
        code, signal = (done.returncode, 0) if done.returncode >= 0 else (-1, -done.returncode)
        return JobResult("exited", code, signal, done.stdout, done.stderr, outputs, ms)

    return run


@pytest.fixture
def read_tests(run_job_unboxed: RunJob) -> Callable[..., report.Reading]:
    """Run a suite over a checkout and read what came back."""

    def run(suite: tests.Suite, checkout: Path) -> report.Reading:
        nonce = os.urandom(16).hex()
        result = run_job_unboxed(tests.plan(suite, "0" * 40, nonce), checkout)
        reading = tests.read(suite, nonce, result)
        print(result.stdout.decode()[-2000:], result.stderr.decode()[-2000:], json.dumps(reading.problem))
        return reading

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkout from {path: text}; later calls add to it or, with None, delete."""
    root = tmp_path / "checkout"

    def write(files: dict[str, str | None]) -> Path:
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        return root

    return write
