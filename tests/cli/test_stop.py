"""`inbounds stop` as it is typed where nothing runs, and what it refuses; stops of real runs are in tests/run."""

import json
import os
import subprocess
import sys
from pathlib import Path


def stop(home: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """The real command; never `--all` without `--here`, which would stop whatever else runs on this host."""
    assert "--all" not in args or "--here" in args
    return subprocess.run(
        [sys.executable, "-m", "inbounds", "stop", *args],
        env={**os.environ, "INBOUNDS_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_runs_and_nothing_is_written(home: Path, finished: Path) -> None:
    before = (finished / "journal.jsonl").read_bytes()
    done = stop(home, "--all", "--here")
    assert (done.returncode, done.stdout) == (0, "nothing runs\n"), done.stderr
    told = json.loads(stop(home, "--all", "--here", "--json").stdout)
    assert told["stopped"] == told["others"] == told["problems"] == []
    assert told["record"] == ""
    assert not (home / "incidents").exists()
    assert (finished / "journal.jsonl").read_bytes() == before, "a finished run is left alone"


def test_a_finished_run_says_how_it_ended_and_when(home: Path, finished: Path) -> None:
    (item,) = json.loads(stop(home, finished.name, "--json").stdout)["stopped"]
    assert item["run_id"] == finished.name
    assert item["code"]
    assert item["sealed_at_ms"] <= item["ended_at_ms"]


def test_flags_that_do_not_go_together_are_refused(home: Path) -> None:
    assert stop(home, "--here").returncode == 100
    both = stop(home, "20260101-000000-abcdef", "--all", "--here")
    assert both.returncode == 100
    assert "both a run and --all" in both.stderr
