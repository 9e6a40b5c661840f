"""The GPUs that a run was granted: settled before the signature, watched from preflight to the last survivor (E7).

A grant that cannot be given or watched as policy says is refused; nothing is left out. Knows nothing of NVML's words.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from inbounds.contracts.bound import Contract, Gpu
from inbounds.contracts.documents import Mode
from inbounds.contracts.errors import HostError, InboundsError, RefusedError
from inbounds.sandbox import gpu
from inbounds.sandbox.gpu import NONE, Device, Grant
from inbounds.sandbox.gpuwatch import Ceiling, Finding, GpuWatch
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.spec import ENFORCED

SETTING = "gpu"  # its key in settings.json
MECHANISM = "gpu_ceilings"
HARDENED = "the hardened mode gives no GPU: its host service takes files and directories from a run, and no device"
NOBODY_NAMED = -1  # the user that a jail of root's will have: one that no node can belong to


class Host(Protocol):
    """Where the nodes of GPUs are found."""

    def grant(self, numbers: tuple[int, ...]) -> Grant:
        """The nodes of these; RefusedError where they are not there."""


def settle(asked: Gpu, mode: Mode, host: Host | None = None) -> Grant:
    """Before a person is asked to sign: the nodes, which exist, may be opened and are watched here; RefusedError."""
    if not asked.devices:
        return NONE
    if mode == "hardened":
        raise RefusedError(
            HARDENED,
            where="resources.gpu",
            expected="the rootless mode for a run with a GPU",
            fix="write enforcement.mode: rootless in .inbounds/policy.yaml, or take the devices out of resources.gpu",
        )
    grant = (host or gpu.Host()).grant(asked.devices)
    ordinary = os.getuid() != 0
    wrong = grant.problems(os.getuid() if ordinary else NOBODY_NAMED, _groups() if ordinary else ())
    try:
        if not wrong:
            GpuWatch.start(grant, _ceiling(asked), set).stop()
    except HostError as error:
        wrong = [error.one_line()]
    if wrong:
        raise RefusedError(
            f"policy grants GPU {', '.join(map(str, asked.devices))}, which cannot be had here: {'; '.join(wrong)}",
            where="resources.gpu",
            expected="nodes that a jail may open, and NVML to watch them",
            fix="nvidia-smi, which says what the driver lacks; or take the devices out of resources.gpu",
        )
    return grant


class Granted:
    """One run's grant. Nothing is begun where there is none."""

    def __init__(self, contract: Contract, settings: Mapping[str, Any], pids: Callable[[], set[int]]) -> None:
        """`pids` gives every living process of the run's jails."""
        self._contract, self._said, self._pids = contract, settings.get(SETTING), pids
        self._watch: GpuWatch | None = None
        self.devices: tuple[Device, ...] = ()

    def begin(self, who: Identity, reasons: list[str], enforcement: dict[str, str]) -> None:
        """Compare the grant with the host once more and begin to watch; what is wrong is a reason not to start."""
        asked = self._contract.gpu
        if not asked.devices and self._said is None:
            return
        self.end()
        try:
            grant = gpu.from_json(self._said)
            if grant.minors != asked.devices:
                raise HostError(f"the nodes are those of GPU {grant.minors}, granted is {asked.devices}")
            if who.slot is not None:
                raise HostError(HARDENED)
            if wrong := grant.problems(who.uid, () if who.dropped else _groups()):
                raise HostError("; ".join(wrong))
            self._watch = GpuWatch.start(grant, _ceiling(asked), self._pids)
        except (InboundsError, ValueError) as error:
            why = error.one_line() if isinstance(error, InboundsError) else str(error)
            enforcement[MECHANISM] = f"absent: {why}"
            reasons.append(f"the granted GPU cannot be had: {why}")
            return
        self.devices = grant.devices
        enforcement[MECHANISM] = ENFORCED

    def finding(self) -> Finding | None:
        """What ends the run: a ceiling that was exceeded, or that nobody watches any more."""
        return self._watch.finding() if self._watch else None

    def end(self) -> None:
        """Watch no more."""
        watch, self._watch = self._watch, None
        if watch:
            watch.stop()


def _ceiling(asked: Gpu) -> Ceiling:
    return Ceiling(asked.memory_mib << 20, asked.utilization_percent, asked.utilization_seconds)


def _groups() -> tuple[int, ...]:
    """Those that a jail keeps where it is the operator's own user."""
    return (os.getgid(), *os.getgroups())
