"""Versions of what a run stands on: asked of the programs themselves, each named even where it is absent."""

import platform
import subprocess
from importlib import metadata

import pytest

from inbounds.contracts.errors import HostError
from inbounds.run import versions
from inbounds.sandbox import host
from inbounds.store import git


def test_versions_are_those_that_the_programs_state_themselves() -> None:
    found = versions.collect("claude", "2.1.40", "ab" * 32)
    assert found["agent: claude"] == "2.1.40"
    assert found["kernel"].split()[1] == platform.release()
    assert found["git"] in subprocess.run([git.program(), "version"], capture_output=True, text=True, check=True).stdout
    assert found["judge bandit: bandit"] == metadata.version("bandit")
    try:
        stated = host.bubblewrap().version
    except HostError:
        stated = versions.ABSENT  # a host without a bubblewrap that can be used, which preflight refuses
    assert found["bubblewrap"].split()[0] in stated
    absent = [name for name, value in found.items() if value == versions.ABSENT]
    assert set(absent) <= {"bubblewrap"}, found
    assert list(found) == sorted(found)


def test_what_is_not_there_is_absent_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise HostError("not installed")

    monkeypatch.setattr(versions, "bubblewrap", nothing)
    monkeypatch.setattr(git, "run", nothing)
    monkeypatch.setattr(versions, "PACKAGES", {"x": "inbounds-no-such-package"})
    found = versions.collect("codex", "", "")
    assert [found[name] for name in ("bubblewrap", "git", "x", "agent: codex")] == [versions.ABSENT] * 4
