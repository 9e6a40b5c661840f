"""A person with the installed wheel: built and installed once a session, or the one that this suite runs from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import shop_repository
from person import Person
from real_agents import commands

from inbounds.sandbox.probe import probe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _jails() -> None:
    facts = probe()
    if facts.level < 1:
        pytest.skip(f"no jail can be made here: {facts.problem or ', '.join(facts.lacking)}")


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`inbounds` out of the built wheel in a venv of its own, as pipx and uv tool make one."""
    if os.environ.get("INBOUNDS_TEST_WHEEL") == "1":
        return Path(sys.executable).parent / "inbounds"
    place = tmp_path_factory.mktemp("inbounds-wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)]
    quiet("the wheel is not built", build)
    quiet("no venv", [sys.executable, "-m", "venv", str(place / "venv")])
    wheel = next(place.glob("*.whl"))
    quiet("the wheel is not installed", [str(place / "venv/bin/python"), "-m", "pip", "install", "-q", str(wheel)])
    return place / "venv" / "bin" / "inbounds"


def quiet(what: str, argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{what}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state directory for the tests that need not begin with an empty one: its layer is built once."""
    return tmp_path_factory.mktemp("inbounds-state") / "state"


@pytest.fixture
def newcomer(tmp_path: Path, command: Path) -> Iterator[Person]:
    """Somebody whose HOME is empty, with a repository of their own."""
    made = person(tmp_path, command)
    yield made
    made.close()


@pytest.fixture
def person_at_work(tmp_path: Path, command: Path, state: Path) -> Iterator[Person]:
    """Somebody whose repository is set up, with the reference agent and a provider that is the model server."""
    made = person(tmp_path, command)
    made.state = state
    done = made.runs("init")
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    made.close()


def person(place: Path, command: Path) -> Person:
    (place / "home").mkdir()
    return Person(command, place / "home", shop_repository.make(place / "tariff"))


@pytest.fixture(scope="session")
def claude() -> Path:
    """The directory with Claude Code's command."""
    return commands("claude")


@pytest.fixture(scope="session")
def codex() -> Path:
    """The directory with codex's command."""
    return commands("codex")
