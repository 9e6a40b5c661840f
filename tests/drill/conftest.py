"""Drills make real jails: without them there is nothing to test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbounds.sandbox.probe import probe


@pytest.fixture(autouse=True, scope="session")
def jails() -> None:
    facts = probe()
    if facts.level == 0:
        pytest.skip(f"no jail can be made here: {facts.problem}; {facts.fix}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory with a short name: sockets are made in it."""
    made = Path(os.path.realpath(tempfile.mkdtemp(prefix="inbounds-", dir="/tmp")))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)
