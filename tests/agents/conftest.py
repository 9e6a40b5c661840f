"""Real agent CLIs as fixtures, and a bench to start them on."""

import pytest
from agent_bench import Bench
from real_agents import found


@pytest.fixture(scope="session")
def claude():
    return found("claude")


@pytest.fixture(scope="session")
def codex():
    return found("codex")


@pytest.fixture
def bench(tmp_path):
    """Make benches, each with its script; all are taken down."""
    made = []

    def make(script):
        root = tmp_path / str(len(made))
        root.mkdir()
        made.append(Bench(root, script))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.close()
