"""Hardened runs: whole ones in a slot of a real host service; refused without it, and never weakened silently."""

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import hostrig
import msgspec
import pytest
from runrig import Ran, Rig, script, write
from test_run_acts import played

from inbounds.contracts.errors import RefusedError
from inbounds.host import slots
from inbounds.host.protocol import Phase
from inbounds.journal.verify import verify_run
from inbounds.run import housing
from inbounds.sandbox import hardened
from inbounds.sandbox.spec import ENFORCED, HARDENED
from inbounds.store.store import Store

INSTALL = "sudo inbounds host install --operator $USER"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has installed: no service answers."""
    monkeypatch.setenv(hardened.PLACE, str(tmp_path / "none.sock"))


def enforce(rig: Rig, text: str) -> None:
    """What policy asks of the host."""
    with (rig.stage.repository / ".inbounds/policy.yaml").open("a") as file:
        file.write(f"\nenforcement: {textwrap.dedent(text)}\n")


@pytest.mark.req("F10", "P3", "P4")
@pytest.mark.parametrize(
    "asked", ["{mode: hardened}", "{level: 3}", "{mode: hardened, level: 3}", "{require: [packet_filter]}"]
)
def test_what_only_hardened_mode_gives_is_refused_with_the_command_that_brings_it(
    rig: Rig, nowhere: None, asked: str
) -> None:
    rig.plays(script(write("/work/billing/tax.py", "")))
    assert rig.order().contract.mode == "rootless"  # the control: as it stands, policy lets it run
    enforce(rig, asked)
    with pytest.raises(RefusedError) as refused:
        rig.order()
    assert refused.value.fix == INSTALL
    assert "policy asks for more" in refused.value.found


@pytest.mark.req("F10")
def test_rootless_by_policy_is_told_that_policy_holds_it(rig: Rig, nowhere: None) -> None:
    rig.plays(script(write("/work/billing/tax.py", "")))
    enforce(rig, "{mode: rootless, level: 3}")
    with pytest.raises(RefusedError) as refused:
        rig.order()
    assert "mode: auto" in refused.value.fix


@pytest.mark.req("F10")
def test_a_hardened_contract_is_not_weakened_where_the_service_is_gone(rig: Rig, nowhere: None) -> None:
    ran = rig.run(
        script(write("/work/billing/tax.py", "")),
        change=lambda contract: msgspec.structs.replace(contract, mode="hardened"),
    )
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert ran.data("run.accepted")[0]["mode"] == "hardened"
    assert "the host service is not installed" in ran.data("stop.decided")[0]["why"]
    assert ran.data("jail.started") == []
    assert verify_run(ran.run_dir).ok


# -- whole runs, in a slot


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[hostrig.Rig]:
    """A host service of this test's own, which the runs find."""
    hostrig.root_or_skip()
    made = hostrig.Rig()
    try:
        made.start()
        monkeypatch.setenv(hardened.PLACE, made.paths.socket)
        yield made
    finally:
        made.close()


def kept(host: hostrig.Rig) -> list[int]:
    """The slots that are not free."""
    return list(slots.records(host.paths))


@pytest.mark.req("F1", "F2", "F4", "F10", "I1")
def test_an_honest_run_in_a_slot_comes_to_done_and_leaves_no_slot(rig: Rig, host: hostrig.Rig) -> None:
    ran = rig.run(played("honest"))
    assert ran.code == "DONE", (ran.data("stop.decided"), host.log.read_text())
    assert ran.contract.mode == ran.data("run.accepted")[0]["mode"] == ran.manifest["run"]["mode"] == "hardened"
    found = ran.data("preflight.finished")[0]["enforcement"]
    for name in ("dedicated_user", "volume_image", "bytes_limit", "inodes_limit", "acl", "cgroup_memory", "watchdog"):
        assert found[name] == ENFORCED, name
    jails = ran.data("jail.started")
    assert {jail["role"] for jail in jails} >= {"coder", "tester"}
    assert all(jail["enforcement"]["volume_image"] == ENFORCED for jail in jails)
    steps = [(item["step"], item["ok"]) for item in ran.data("stop.step")]
    assert steps == [(name, True) for name in ("lease_closed", "frozen", "persisted", "killed", "kept")]
    assert kept(host) == []
    assert housing.number_of(ran.run_dir) is None
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok
    store = Store.open(ran.contract.store)
    assert [change.path for change in store.diff(ran.contract.base_tree, ran.data("commit.made")[-1]["tree"])] == [
        "billing/invoice.py"
    ]
