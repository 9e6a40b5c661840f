"""Taking a run up again: what recover, resume and amend do between a person and a new supervisor.

Signs nothing by itself and decides nothing: the kernel does, once the supervisor has what people signed.
"""

import json
from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import canonical
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.gateway.keys import KeyStore
from inbounds.gateway.settings import keys_for
from inbounds.journal import sshsig
from inbounds.kernel.decide import exhausted
from inbounds.kernel.state import State
from inbounds.run import amending, authorize, decision, launch, preflight, reauthorize, recovery, replay, requests
from inbounds.run.clock import now_ms
from inbounds.run.home import Home


def state_of(home: Home, run_id: str) -> State:
    """The kernel's state as the journal gives it now."""
    return replay.replay(replay.records(home.run(run_id))).state


def amend(home: Home, run_id: str, said: LimitsText, note: str) -> dict[str, Any]:
    """The statement of the next version of a run's limits; RefusedError for a run that is done or landed."""
    contract, tampered = recovery.trusted(home, run_id)
    if tampered:
        raise HostError(tampered, where=run_id, fix=f"inbounds verify {run_id}")
    state = state_of(home, run_id)
    if state.stop_code == "DONE":
        raise RefusedError(f"{run_id} is done: its limits hold nothing any more", fix=f"inbounds review {run_id}")
    return amending.statement(contract, state.version + 1, amending.amended(state.limits, said), note)


def sign_amendment(home: Home, run_id: str, statement: dict[str, Any]) -> str:
    """Sign as the operator at the keyboard, and hand it to the supervisor or, where none runs, to the journal."""
    run_dir = home.run(run_id)
    contract, _ = recovery.trusted(home, run_id)
    name, key = authorize.me(contract.operator_keys)
    armored = sshsig.sign(key, canonical(statement), authorize.APPROVAL_NAMESPACE)
    if recovery.phase(home, run_id) == "running":
        requests.ask_amendment(run_dir, statement, armored)
    else:
        asked = {"statement": statement, "signature": armored}
        kind, data = amending.read(asked, contract, state_of(home, run_id).version)
        if kind != amending.AMENDED:
            raise RefusedError(f"the amendment does not hold: {data['why']}", where=run_id)
        decision.append(home, run_id, kind, data)
    return name


def still_exhausted(home: Home, run_id: str, amendment: dict[str, Any] | None) -> tuple[str, ...]:
    """Limits that would end the run at once if it went on now, with the amendment if there is one."""
    from dataclasses import replace

    from inbounds.contracts.limits import from_json

    state = state_of(home, run_id)
    if amendment:
        state = replace(state, limits=from_json(amendment["limits"]))
    return exhausted(state, now_ms())


def missing_approvals(home: Home, run_id: str) -> tuple[int, int]:
    """(how many valid signatures the last stop has, how many policy wants)."""
    contract, _ = recovery.trusted(home, run_id)
    run_dir = home.run(run_id)
    return len(reauthorize.given(run_dir, contract)), reauthorize.wanted(run_dir, contract)


def start(home: Home, run_id: str, mode: str) -> launch.Started:
    """A supervisor that takes the run up: `mode` is recover or resume; the keys are the operator's own of today."""
    run_dir = home.run(run_id)
    contract, tampered = recovery.trusted(home, run_id)
    if tampered:
        raise HostError(tampered, where=str(run_dir), fix=f"inbounds stop {run_id}; inbounds verify {run_id}")
    return launch.start(home, run_dir, _keys(home, run_dir, contract), mode)


def _keys(home: Home, run_dir: Path, contract: Contract) -> bytes:
    settings = preflight.read_settings(run_dir / launch.SETTINGS)
    if launch.settings_sha256(settings) != contract.settings_sha256:
        raise HostError("settings.json is not what the contract was bound with", where=str(run_dir))
    return json.dumps(keys_for(settings["gateway"], KeyStore(home.keys))).encode()
