"""Files of a run changed between signing and start: the run must not begin with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runrig import Ran, Rig, script, write

from inbounds.contracts.bound import Contract
from inbounds.run import authorize, launch


def started_after(rig: Rig, change: Callable[[Path], None]) -> Ran:
    """A signed run, changed on disk before its supervisor reads it."""
    rig.plays(script(write("billing/x.py", "1\n")))
    made = rig.order()
    contract = authorize.authorize(rig.home, made.contract, ask=lambda: True, key=rig.stage.key)
    run_dir = launch.prepare(rig.home, contract, made.blast, made.settings)
    change(run_dir)
    started = launch.start(rig.home, run_dir, made.upstreams())
    started.process.wait(120)
    return Ran(rig.home, run_dir)


def why(ran: Ran) -> str:
    assert ran.code == "STOP_PREFLIGHT_FAILED", ran.data("stop.decided")
    assert not ran.data("iteration.started")
    return str(ran.data("stop.decided")[0]["why"])


def elsewhere(run_dir: Path) -> None:
    """Send the operator's provider key to another host."""
    path = run_dir / launch.SETTINGS
    settings = json.loads(path.read_bytes())
    for upstream in settings["gateway"]["upstreams"].values():
        upstream["base_url"] = "http://127.0.0.1:9"
    path.write_text(json.dumps(settings, sort_keys=True))


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(run_dir: Path) -> None:
        path = run_dir / launch.CONTRACT
        contract = msgspec.json.decode(path.read_bytes(), type=Contract)
        path.write_bytes(msgspec.structs.replace(contract, **changes).encode())

    return change


@pytest.mark.req("E8")
def test_keys_go_nowhere_but_to_the_bound_host(rig: Rig) -> None:
    ran = started_after(rig, elsewhere)
    assert "settings.json" in why(ran)
    assert not ran.data("gateway.started")


@pytest.mark.req("E8", "J13")
def test_a_contract_about_something_else_than_what_was_signed_is_refused(rig: Rig) -> None:
    assert "signed statement" in why(started_after(rig, rewritten(policy_sha256="0" * 64)))


def test_control_an_unchanged_run_begins(rig: Rig) -> None:
    ran = started_after(rig, lambda _: None)
    assert ran.data("iteration.started")
    assert ran.data("gateway.started")
