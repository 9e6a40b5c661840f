"""Real agent CLIs for the tests: found, or installed by npm into a cache; skipped with the reason where neither works.

Shared by every directory of tests that starts one.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from inbounds.agents.registry import profile

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"codex": "@openai/codex@0.169", "claude": "@anthropic-ai/claude-code@2.1"}
INSTALL_SECONDS_MAX = 600


def _cache() -> Path:
    named = os.environ.get("INBOUNDS_AGENT_CACHE")
    return Path(named) if named else ROOT / ".cache" / "agents"


def _writable(place: Path) -> Path:
    """The cache where it can be written, a private one otherwise."""
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
    return place if os.access(place, os.W_OK) else Path(tempfile.gettempdir()) / f"inbounds-agents-{os.getuid()}"


def _install(name: str, place: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"{name} is not installed and npm is not there to install it")
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        pytest.skip(f"{place} belongs to somebody else")
    with (place / f".{name}.lock").open("w") as lock:  # two test processes may want the same one
        fcntl.flock(lock, fcntl.LOCK_EX)
        if profile(name).find([place]) is not None:
            return
        env = os.environ | {"npm_config_cache": str(place / ".npm"), "npm_config_update_notifier": "false"}
        done = subprocess.run(
            [npm, "install", "--prefix", str(place), "--no-audit", "--no-fund", PACKAGES[name]],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
            env=env,
            check=False,
        )
        shutil.rmtree(place / ".npm", ignore_errors=True)  # npm's own cache is of no further use
        if done.returncode != 0:
            pytest.skip(f"npm could not install {PACKAGES[name]}: {done.stderr.strip()[-300:]}")


def found(name: str):
    """The install of an agent."""
    place = _cache()
    # The versions that these tests were written for come first, whatever else is on this machine.
    install = profile(name).find([place])
    if install is None:
        place = _writable(place)
        _install(name, place)
        install = profile(name).find([place])
    if install is None:
        pytest.skip(f"npm installed {PACKAGES[name]} without a program for this machine")
    return install


def commands(name: str) -> Path:
    """The directory to put on PATH so that a person has this agent."""
    found(name)
    for place in (_cache(), _writable(_cache())):
        if (place / "node_modules" / ".bin" / name).exists():
            return place / "node_modules" / ".bin"
    elsewhere = shutil.which(name)
    if elsewhere is None:
        pytest.skip(f"{name} is installed, but not on PATH")
    return Path(elsewhere).parent
