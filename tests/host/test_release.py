"""A slot that no run knows: `inbounds host status` says what to type, `inbounds host release` frees it, never a run's."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hostrig import OTHER, Client, Rig, gone

from inbounds.cli import host
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.host import slots
from inbounds.host.protocol import Op
from inbounds.run import slotfile
from inbounds.sandbox import hardened

RUN = "20260101-000000-abcdef"


@pytest.fixture
def home(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory, and the rig's service as the one that is asked."""
    monkeypatch.setenv("INBOUNDS_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(hardened.PLACE, rig.paths.socket)
    return tmp_path / "state"


def typed(*args: str) -> Result:
    return CliRunner().invoke(host.command, args, standalone_mode=False)


def status() -> list[dict[str, object]]:
    found = json.loads(typed("status", "--json").stdout)["slots"]
    assert isinstance(found, list)
    return found


def kept(rig: Rig) -> Client:
    """What is left where a client died behind its first jail: kept, of this test's own user."""
    client = rig.connect(os.getuid())
    assert client.open().errno == 0
    argv, sources = rig.wrap("/bin/true")
    client.run(*argv, sources=tuple(sources))
    assert client.ask(Op.DETACH).errno == 0
    return client


def test_status_says_what_to_type_and_typing_it_frees_the_slot(rig: Rig, home: Path) -> None:
    number = kept(rig).slot
    [said] = status()
    assert (said["slot"], said["phase"], said["run"]) == (number, "kept", "")
    assert said["to_type"] == f"inbounds host release {number}"
    assert f"no run of this state directory knows it; to destroy it: inbounds host release {number}" in (
        typed("status").stdout
    )
    done = typed("release", str(number))
    assert done.exception is None, done.exception
    assert gone(number, rig.paths)
    assert status() == []
    assert not home.exists(), "looking makes nothing"
    again = typed("release", str(number))
    assert isinstance(again.exception, HostError)


def test_a_runs_slot_is_not_released(rig: Rig, home: Path) -> None:
    number = kept(rig).slot
    (home / "runs" / RUN).mkdir(parents=True, mode=0o700)
    slotfile.remember(home / "runs" / RUN, number)
    [said] = status()
    assert (said["run"], said["to_type"]) == (RUN, f"inbounds discard {RUN}")
    done = typed("release", str(number))
    assert isinstance(done.exception, RefusedError)
    assert done.exception.fix == f"inbounds discard {RUN}"
    assert slots.load(rig.paths, number) is not None
    slotfile.forget(home / "runs" / RUN)
    assert typed("release", str(number)).exception is None  # the control: the run's word alone has kept it


@pytest.mark.req("F4")
def test_neither_a_slot_in_use_nor_another_users_is_released(rig: Rig, home: Path) -> None:
    mine, others = rig.connect(os.getuid()), rig.connect(OTHER)
    mine.open()
    others.open()
    assert others.ask(Op.DETACH).errno == 0
    assert [(one["slot"], one["to_type"]) for one in status()] == [(mine.slot, "")]
    for number, why in ((mine.slot, "in use"), (others.slot, "another user's")):
        refused = typed("release", str(number)).exception
        assert isinstance(refused, hardened.RefusalError)
        assert why in refused.found
    assert mine.ask(Op.STATE).errno == 0
    assert others.ask(Op.ATTACH).errno == 0
