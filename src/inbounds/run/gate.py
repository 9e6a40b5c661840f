"""The run's gateway and what it says, as the journal's records. The keys pass by as a descriptor and are never read.

Knows the gateway's control channel; decides nothing.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.gateway.config import Caps, GatewayConfig
from inbounds.gateway.control import GatewayProcess
from inbounds.kernel.events import Failed
from inbounds.run.clock import now_ms
from inbounds.run.home import Home

Post = Callable[[str, Mapping[str, Any]], None]
# Refusals that count as nothing more: what a "spent" event says by itself, and that a request has to wait.
WAITS = frozenset({"paced", "paused"})
FINAL = WAITS | {"spent", "lease_closed"}


def configuration(home: Home, contract: Contract, settings: Mapping[str, Any], token: str) -> GatewayConfig:
    """What the gateway of this run serves, without keys; `settings` as in the run's settings.json."""
    repository = contract.store.rsplit("/", 2)[-2]
    limits = contract.numbers()
    caps = Caps(
        run_micro_usd=limits.budget_micro_usd,
        request_micro_usd=limits.request_micro_usd,
        month_micro_usd=contract.month_micro_usd or None,
        thread_month_micro_usd=contract.thread_month_micro_usd or None,
        run_tokens=limits.tokens,
        tool_calls=limits.tool_calls,
        turns=limits.turns,
    )
    return GatewayConfig.load(
        {
            **settings["gateway"],
            "run_id": contract.run_id,
            "thread": f"{repository}:{contract.thread}",
            "requirements": [f"{repository}:{r.id}" for r in contract.requirements],
            "token": token,
            "ledger": str(home.ledger),
            "caps": {name: getattr(caps, name) for name in Caps.__dataclass_fields__},
            "organisation": "default",
            "zone": contract.time_zone,
        }
    )


def start(config: GatewayConfig, keys_fd: int, post: Post) -> GatewayProcess:
    """Start the gateway; its events become records through `post`."""
    waiting = Waiting(post)
    gateway = GatewayProcess.start(config, lambda event: hear(event, waiting.post), keys_fd=keys_fd)
    os.close(keys_fd)
    post("gateway.started", {"pid": gateway.pid, "seal": dict(gateway.ready.get("seal", {}))})
    return gateway


class Waiting:
    """Tells once that requests have to wait, until one is answered again: whoever insists must not fill the journal."""

    def __init__(self, post: Post) -> None:
        """`post` takes what is told."""
        self._post, self._told = post, ""

    def post(self, kind: str, data: Mapping[str, Any]) -> None:
        """Pass a record on, unless it says again what the last of its kind said."""
        reason = str(data.get("reason", "")) if kind == "model.refused" else ""
        if reason in WAITS and reason == self._told:
            return
        if kind in ("model.refused", "model.usage"):
            self._told = reason
        self._post(kind, data)


def hear(event: Mapping[str, Any], post: Post) -> None:
    """One event of the gateway as a record."""
    data = {key: value for key, value in event.items() if key != "event"}
    match event.get("event"):
        case "usage":
            # Recorded when the loop comes to it, which within a stop may be seconds later.
            began = now_ms() - int(data["ms"])
            post("model.usage", {**data, "began_at_ms": began})
        case "refused":
            post("model.refused", {**data, "cap": "lease" if data.get("reason") in FINAL else ""})
        case "spent":
            post("model.refused", {"reason": str(data.get("detail", "spent")), "cap": str(data["cap"]), "status": 402})
        case "overshoot":
            detail = (
                f"a provider billed {data.get('cost_micro_usd')}, bound {data.get('bound_micro_usd')} micro-dollars"
            )
            post(Failed.KIND, {"part": "gateway", "detail": detail})
        case "counted":
            post("external.call", {"purpose": "counting tokens", **data})
        case "ledger_failed":
            post(Failed.KIND, {"part": "gateway", "detail": f"the ledger failed: {data.get('detail', '')}"})
        case "gone":
            if not data.get("expected"):
                post(Failed.KIND, {"part": "gateway", "detail": f"it ended by itself with {data.get('exit')}"})
        case _:
            return
