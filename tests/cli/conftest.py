"""A state directory of its own for each test, the journal's sample run in it, and the real `inbounds` command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "journal"))

import evidence

Inbounds = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state directory that this test's commands use."""
    path = tmp_path / "state"
    monkeypatch.setenv("INBOUNDS_HOME", str(path))
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def finished(home: Path) -> Path:
    """A finished run that verifies, as far as a hand-made one can: its commits are in no store."""
    return evidence.write(home, evidence.good_run())


@pytest.fixture
def inbounds(home: Path) -> Inbounds:
    """Run the real command, as a process."""

    def run(*args: str, stdin: str | None = None, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "inbounds", *args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "INBOUNDS_HOME": str(home)},
        )

    return run


def invoke(command: Any, *args: str, stdin: str | None = None) -> Result:
    """Call one verb in this process; its exit code is what it returns."""
    return CliRunner().invoke(command, args, input=stdin, standalone_mode=False)


def facts(result: Result) -> Any:
    """What --json printed."""
    assert result.exception is None, result.exception
    return json.loads(result.stdout)
