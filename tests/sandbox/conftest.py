import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jailrig import WITHOUT, Rig, host_or_skip, take_away


@pytest.fixture(scope="session")
def _jails() -> None:
    host_or_skip()


@pytest.fixture
def rig(_jails: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    # below a directory that no other user may enter, as a run's state directory is
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="inbounds-test-")))
    if WITHOUT:
        take_away(monkeypatch, WITHOUT)
    made = Rig(scratch)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(scratch)
