"""Hardened runs: refused where the host service is not there, and never weakened silently."""

import textwrap
from pathlib import Path

import msgspec
import pytest
from runrig import Rig, script, write

from inbounds.contracts.errors import RefusedError
from inbounds.journal.verify import verify_run
from inbounds.sandbox import hardened

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
