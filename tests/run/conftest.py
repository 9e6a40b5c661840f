"""One state directory a session (so that the dependency layer is built once), one stage a test."""

from collections.abc import Iterator
from pathlib import Path

import hostrig
import pytest
from runrig import Rig

from inbounds.demo import stage
from inbounds.run.home import Home, open_home
from inbounds.sandbox.hardened import PLACE
from inbounds.sandbox.probe import probe


@pytest.fixture(scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A state directory of this session's own."""
    facts = probe()
    if facts.level < 1:
        pytest.skip(f"no jail can be made here: {facts.problem or ', '.join(facts.lacking)}")
    return open_home(Path(tmp_path_factory.mktemp("inbounds-state")))


@pytest.fixture
def rig(state_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A stage of the demo's repository, and runs on it."""
    monkeypatch.setenv("INBOUNDS_HOME", str(state_home.path))
    # whatever this machine has installed: a run is hardened where a test starts a service of its own
    monkeypatch.setenv(PLACE, str(state_home.path / "no-service.sock"))
    made = Rig(state_home, stage.build(state_home.path))
    yield made
    made.close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[hostrig.Rig]:
    """A host service of this test's own, which the runs find."""
    hostrig.root_or_skip()
    made = hostrig.Rig()
    try:
        made.start()
        monkeypatch.setenv(PLACE, made.paths.socket)
        yield made
    finally:
        made.close()
