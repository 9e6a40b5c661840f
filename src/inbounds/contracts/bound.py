"""The bound contract of one run: everything narrowed, concrete and hashed, frozen before anything starts (E8, J13).

It is what the journal's first record commits to; the supervisor reads nothing else. It does not read the repository.
"""

from typing import Any

import msgspec

from inbounds.contracts import anomalies as anomalous
from inbounds.contracts import conduct as conducting
from inbounds.contracts.canonical import canonical, digest
from inbounds.contracts.documents import Mode, Notify, Plan, Requirement
from inbounds.contracts.limits import Limits, from_json

CONTRACT_VERSION = 1


class PinnedTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An acceptance test: its id, its file, and the git blob and SHA-256 that the file must have (M5, O6)."""

    test: str
    path: str
    blob: str
    sha256: str


class Anomalies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Actions by anomaly rule, thresholds by key, and the paths that policy calls security-critical."""

    actions: dict[str, anomalous.Action] = msgspec.field(default_factory=lambda: dict(anomalous.DEFAULT_ACTIONS))
    numbers: dict[str, int] = msgspec.field(default_factory=lambda: dict(anomalous.NUMBERS))
    paths: tuple[str, ...] = ()


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The GPUs that the run gets, by number, and its ceilings on each; no device, no ceiling."""

    devices: tuple[int, ...] = ()
    memory_mib: int = 0
    utilization_percent: int = 0
    utilization_seconds: int = 0


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run, bound. Paths are repository-relative; `limits` are integers in the units of limits.Limits.

    `settings_sha256` covers settings.json, which says how the run is carried out: the agent's program, and the hosts
    to which the gateway hands the operator's keys. `mode` is the one that the run has, settled before it was signed.
    """

    version: int
    run_id: str
    repository: str
    thread: str
    base_commit: str
    base_tree: str
    store: str
    branch: str
    plan: Plan
    plan_sha256: str
    requirements: tuple[Requirement, ...]
    requirements_sha256: dict[str, str]
    policy_sha256: str
    config_sha256: str
    limits: dict[str, int]
    conduct: dict[str, Any]
    sources: dict[str, str]
    targets: tuple[str, ...]
    protected: tuple[str, ...]
    interfaces: tuple[str, ...]
    acceptance: tuple[PinnedTest, ...]
    known_failing: tuple[str, ...]
    test_runner: str
    test_command: tuple[str, ...]
    test_paths: tuple[str, ...]
    test_pythonpath: tuple[str, ...]
    test_timeout_ms: int
    layer: str
    layer_pythonpath: tuple[str, ...]
    agent: str
    agent_version: str
    agent_sha256: str
    settings_sha256: str
    model: str
    profile: str
    mode: Mode = "rootless"
    level: int
    require: tuple[str, ...]
    drill_max_age_days: int = 0  # 0: no drill is asked for
    promote_to: str
    promote_auto: bool
    notify: Notify
    month_micro_usd: int
    thread_month_micro_usd: int
    time_zone: str
    operator: str
    operator_keys: dict[str, str]
    anomalies: Anomalies = Anomalies()
    gpu: Gpu = Gpu()
    build_directories: tuple[str, ...] = ()  # repository-relative; what is written there can be executed
    statement: dict[str, object]
    signature: str
    goal: str

    def numbers(self) -> Limits:
        """The limits as the kernel takes them."""
        return from_json(self.limits)

    def conducted(self) -> conducting.Conduct:
        """How policy wants the run conducted, as the kernel takes it."""
        return conducting.from_json(self.conduct)

    def restated(self) -> dict[str, object]:
        """The statement that what stands in here amounts to: what the person's signature must be about."""
        return statement(
            plan=document_sha256(self.plan),
            requirements={requirement.id: document_sha256(requirement) for requirement in self.requirements},
            policy=self.policy_sha256,
            config=self.config_sha256,
            thread=self.thread,
        )

    def encode(self) -> bytes:
        """The canonical bytes that contract.json holds and `sha256` covers."""
        return canonical(msgspec.to_builtins(self))

    def sha256(self) -> str:
        """What run.accepted commits to."""
        return digest(msgspec.to_builtins(self))


def decode(raw: bytes) -> Contract:
    """Read contract.json back; msgspec.ValidationError if it is not one."""
    return msgspec.json.decode(raw, type=Contract, strict=True)


def document_sha256(document: msgspec.Struct) -> str:
    """The hash by which a document is referred to (A9, H3): canonical JSON of what it says, layout aside."""
    return digest(msgspec.to_builtins(document))


def statement(*, plan: str, requirements: dict[str, str], policy: str, config: str, thread: str) -> dict[str, object]:
    """What the person signs to start a run: the contract's hashes, so that any later change voids it."""
    return {
        "what": "start",
        "thread": thread,
        "plan_sha256": plan,
        "requirements": requirements,
        "policy_sha256": policy,
        "config_sha256": config,
    }
