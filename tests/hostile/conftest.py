"""Hostile agents run on the rig of all whole runs: one state directory a session, one stage a test."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from runrig import Rig

from inbounds.agents import npm
from inbounds.agents.profile import Install
from inbounds.agents.registry import profile
from inbounds.demo import stage
from inbounds.run.home import Home, open_home
from inbounds.sandbox.probe import probe


@pytest.fixture(scope="session")
def hostile_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A state directory of this session's own."""
    facts = probe()
    if facts.level < 1:
        pytest.skip(f"no jail can be made here: {facts.problem or ', '.join(facts.lacking)}")
    return open_home(Path(tmp_path_factory.mktemp("inbounds-hostile")))


@pytest.fixture
def rig(hostile_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A stage of the demo's repository, and runs on it."""
    monkeypatch.setenv("INBOUNDS_HOME", str(hostile_home.path))
    made = Rig(hostile_home, stage.build(hostile_home.path))
    yield made
    made.close()


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Install]:
    """Source text of a Python program -> an agent that is this program, to be run in the coder's jail."""

    def made(source: str) -> Install:
        found = profile("reference").find(())
        assert found is not None
        path = tmp_path / "agent.py"
        path.write_text(source, encoding="utf-8")
        return replace(found, path=str(path), sha256=npm.sha256(path))

    return made
