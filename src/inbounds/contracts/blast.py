"""The blast radius: what a run can affect at most, computed from its bound contract before it starts (Q1).

Only what the contract grants; what the host really enforces is measured by preflight and stands beside it.
"""

from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.job import GATEWAY_PORT
from inbounds.contracts.units import show_usd, write_duration


def radius(contract: Contract, hosts: tuple[str, ...]) -> dict[str, Any]:
    """A plain dictionary of short sentences, hashed into run.accepted and shown on one screen."""
    limits = contract.numbers()
    return {
        **({"devices": _devices(contract)} if contract.gpu.devices else {}),
        "can_write": [f"{target} (kept only if judged in scope)" for target in contract.targets],
        "cannot_write": [
            f"{path} (read-only or restored before judgement)"
            for path in dict.fromkeys((*contract.protected, *(pin.path for pin in contract.acceptance)))
        ],
        "can_read": [
            f"thread {contract.thread}",
            *(f"interface {path}" for path in contract.interfaces),
            "system programs and libraries, the dependency layer",
        ],
        "cannot_read": ["the rest of the repository", "home directories", "credentials", "other processes"],
        "network": [
            f"none but the metered gateway (127.0.0.1:{GATEWAY_PORT} inside), which asks {host}" for host in hosts
        ],
        "can_execute": [
            "system programs, the interpreter, the dependency layer; nothing that it wrote"
            + (" but what it builds:" if contract.build_directories else ""),
            *(f"{path}/: whatever it writes there, as native code" for path in contract.build_directories),
        ],
        "money_at_most": f"${show_usd(limits.budget_micro_usd)}",
        "time_at_most": write_duration(limits.wall_clock_ms),
        "resources_at_most": (
            f"{limits.processes} processes, {limits.memory_bytes >> 20} MiB memory, {limits.disk_bytes >> 20} MiB disk"
        ),
        "lands_on": f"{contract.branch} in a store outside the repository"
        + (f", then {contract.promote_to} if the gate lets it" if contract.promote_auto else ""),
        "undo": "inbounds rollback RUN for what landed, inbounds discard RUN for what did not",
    }


def _devices(contract: Contract) -> list[str]:
    """A grant of a GPU is one of the driver in the host's kernel: a person who signs it is told so."""
    gpu = contract.gpu
    numbers = ", ".join(map(str, gpu.devices))
    reach = f"GPU {numbers}: agent and tests reach NVIDIA's driver in the host's kernel by ioctl; a flaw there leads"
    use = f"on each {gpu.memory_mib} MiB at most, and {gpu.utilization_percent} % for {gpu.utilization_seconds} s"
    return [
        f"{reach} out of the jail, and what others keep on that GPU is guarded by that driver alone",
        f"{use}; more ends the run; watched through NVML, so that more is had for a moment",
    ]
