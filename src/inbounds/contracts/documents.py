"""What people write: policy.yaml, config.yaml, requirements.yaml and WORK_PLAN.json as frozen models.

Unknown keys are refused (msgspec); values keep the form in which people write them, `narrow.py` makes them concrete.
The models are also the source of the published JSON Schemas (B14).
"""

from typing import Annotated, Literal

import msgspec

from inbounds.contracts import anomalies

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
RelativePath = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FrId = Annotated[str, msgspec.Meta(pattern="^FR-[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PlanId = Annotated[str, msgspec.Meta(pattern="^PLAN-[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Amount = str | int
DocumentVersion = Literal[1]


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Frozen, and strict about keys."""


class LimitsText(_Model, frozen=True):
    """Limits as people write them ("30m", "5", "2G"); absent means: inherit (see limits.RULES)."""

    wall_clock: Amount | None = None
    iterations: int | None = None
    no_progress: int | None = None
    turns: int | None = None
    tool_calls: int | None = None
    file_changes: int | None = None
    iteration_file_changes: int | None = None
    restarts: int | None = None
    budget_usd: Amount | None = None
    request_usd: Amount | None = None
    tokens: int | None = None
    denials: int | None = None
    memory: Amount | None = None
    processes: int | None = None
    disk: Amount | None = None
    inodes: int | None = None


class Operator(_Model, frozen=True):
    """A person who may sign plans and approvals: a name and an SSH public key (O7)."""

    name: Name
    key: Text


Mode = Literal["rootless", "hardened"]


class Enforcement(_Model, frozen=True):
    """What the host must enforce for a run to start (F10, P1-P3).

    `mode` auto takes hardened where the host service is there and serves this user; hardened without it is refused.
    `drill_max_age_days`: a run starts only where a whole, clean `inbounds drill` of this host is younger (M12).
    `build_directories`: whether a thread may declare any (see Config).
    """

    mode: Literal["auto", "rootless", "hardened"] = "auto"
    level: Annotated[int, msgspec.Meta(ge=1, le=3)] = 1
    require: tuple[Name, ...] = ()
    drill_max_age_days: Annotated[int, msgspec.Meta(ge=1, le=365)] | None = None
    build_directories: Literal["allow", "refuse"] = "allow"


class Gpu(_Model, frozen=True):
    """Which GPUs a run gets, by the number in /dev/nvidiaN, and its ceilings on each (E7); none unless named.

    Policy that names one says both ceilings. `utilization_percent` may be exceeded for `utilization_seconds` (default
    60) at a stretch; a thread takes policy's words where it says nothing, and may only tighten.
    """

    devices: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=63)], ...], msgspec.Meta(max_length=16)] | None = None
    memory_mib: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None
    utilization_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    utilization_seconds: Annotated[int, msgspec.Meta(ge=1, le=3_600)] | None = None


class Resources(_Model, frozen=True):
    """What of the host's hardware a run gets beside processor, memory and disk, which `limits` bounds."""

    gpu: Gpu = Gpu()


class MonthBudget(_Model, frozen=True):
    """Monthly caps in dollars and the zone in which a month turns (G3)."""

    organization_usd: Amount | None = None
    thread_usd: Amount | None = None
    time_zone: Name = "UTC"


class Promotion(_Model, frozen=True):
    """Whether the gate moves `development` by itself after DONE (K3)."""

    development: Literal["auto", "manual"] = "manual"


class Notify(_Model, frozen=True):
    """Where a stop and a needed decision are told."""

    desktop: bool = True
    webhook: str | None = None


Percent = Annotated[int, msgspec.Meta(ge=1, le=99)]


class SlowDown(_Model, frozen=True):
    """Slow before stop (E9): from `at_percent` of a limit on, requests keep `interval` and the agent `cpu_percent`."""

    at_percent: Percent
    interval: Amount = "5s"
    cpu_percent: Percent = 50


class Escalation(_Model, frozen=True):
    """From `at_percent` of the budget on nothing is sent until an operator has answered; `wait` ends the run (G8)."""

    at_percent: Percent = 90
    wait: Amount = "30m"


class Resume(_Model, frozen=True):
    """Who may re-authorize a stopped run, and how many of them it takes (E14, N7); no name: any operator.

    `after_incident` is the number for a run that `inbounds stop --all` ended (O4).
    """

    by: tuple[Name, ...] = ()
    approvals: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    after_incident: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1


class Snapshots(_Model, frozen=True):
    """How often a workspace is kept while its agent works, and how many of these are (I3)."""

    every: Amount = "10m"
    keep: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 12


class Conducted(_Model, frozen=True):
    """How runs are conducted: slow-down, escalation, snapshots, recovery, and what follows a stop.

    `quarantine` names stop codes that quarantine where the table says revert; `recovery` is what `inbounds recover`
    does with a run whose supervisor died; `timestamp` is the URL of an RFC 3161 authority that is shown each
    checkpoint, `timestamp_ca` its certificates (PEM, on the host).
    """

    slow_down: SlowDown | None = None
    escalation: Escalation | None = None
    snapshots: Snapshots = Snapshots()
    resume: Resume = Resume()
    recovery: Literal["continue", "stop"] = "continue"
    quarantine: tuple[Name, ...] = ()
    timestamp: str | None = None
    timestamp_ca: str | None = None


class Anomalies(_Model, frozen=True):
    """What the rules over tree and journal look for, and what follows (H16-H20; names in contracts/anomalies.py).

    A thread may lower numbers, tighten actions (note, block, stop) and add security-critical paths; nothing else.
    """

    actions: Annotated[
        dict[str, anomalies.Action],
        msgspec.Meta(extra_json_schema={"propertyNames": {"enum": list(anomalies.BY_NAME)}}),
    ] = {}
    lines: Amount | None = None
    files: Amount | None = None
    binary: Amount | None = None
    rewrite_lines: Amount | None = None
    churn_lines: Amount | None = None
    churn_times: Amount | None = None
    denials: Amount | None = None
    denials_window: Amount | None = None
    paths: Annotated[tuple[RelativePath, ...], msgspec.Meta(max_length=anomalies.PATHS_MAX)] = ()


class Policy(_Model, frozen=True):
    """Repository-wide `.inbounds/policy.yaml`: the widest that any thread of this repository gets."""

    version: DocumentVersion
    operators: tuple[Operator, ...]
    limits: LimitsText = LimitsText()
    agents: tuple[Name, ...] = ("reference", "claude", "codex")
    models: tuple[Name, ...] = ()
    profile: Literal["standard", "strict"] = "standard"
    enforcement: Enforcement = Enforcement()
    resources: Resources = Resources()
    month: MonthBudget = MonthBudget()
    promotion: Promotion = Promotion()
    notify: Notify = Notify()
    anomalies: Anomalies = Anomalies()
    conduct: Conducted = Conducted()
    protected: tuple[RelativePath, ...] = ()


class Tests(_Model, frozen=True):
    """How a thread's tests run: pytest, or a command that writes JUnit XML to $INBOUNDS_JUNIT (C6).

    Paths and test ids are relative to the repository; without paths, the thread's directory is searched.
    """

    runner: Literal["pytest", "junit"] = "pytest"
    command: tuple[Text, ...] = ("python", "-m", "pytest")
    paths: tuple[RelativePath, ...] = ()
    pythonpath: tuple[RelativePath, ...] = ()
    known_failing: tuple[Text, ...] = ()
    timeout: Amount = "10m"


class Interfaces(_Model, frozen=True):
    """What a thread sees beside its own directory, read-only (B6)."""

    read: tuple[RelativePath, ...] = ()


class Config(_Model, frozen=True):
    """A thread's `.inbounds/config.yaml` (B4).

    `build_directories`: where a compiled language's tools put what is then executed, relative to the repository and
    below the thread. They are empty at the start of each jail, in memory, and no part of a result (ADR 15).
    """

    version: DocumentVersion
    owner: Name
    limits: LimitsText = LimitsText()
    resources: Resources = Resources()
    agents: tuple[Name, ...] | None = None
    models: tuple[Name, ...] | None = None
    tests: Tests = Tests()
    interfaces: Interfaces = Interfaces()
    anomalies: Anomalies = Anomalies()
    dependencies: tuple[RelativePath, ...] = ()
    build_directories: Annotated[tuple[RelativePath, ...], msgspec.Meta(max_length=8)] = ()


class Acceptance(_Model, frozen=True):
    """One criterion, bound to an executable test by its id relative to the repository (A4, M5)."""

    criterion: Text
    test: Text
    sha256: Sha256 | None = None


class Requirement(_Model, frozen=True):
    """One Functional Requirement (A1-A9)."""

    id: FrId
    owner: Name
    objective: Text
    acceptance: tuple[Acceptance, ...]
    non_goals: tuple[Text, ...] = ()
    inputs: tuple[RelativePath, ...] = ()
    outputs: tuple[RelativePath, ...] = ()
    security: tuple[Text, ...] = ()
    prohibited: tuple[Text, ...] = ()
    cost_ceiling_usd: Amount | None = None
    runtime_ceiling: Amount | None = None
    done: Text = "every acceptance test passes and no judge objects"
    rollback: Text = "inbounds rollback RUN"


class Requirements(_Model, frozen=True):
    """A thread's `.inbounds/requirements.yaml` (B1)."""

    version: DocumentVersion
    requirements: tuple[Requirement, ...]


class RequirementRef(_Model, frozen=True):
    """A requirement by identifier and, once signed, by hash (A9)."""

    id: FrId
    sha256: Sha256 | None = None


class Plan(_Model, frozen=True):
    """WORK_PLAN.json (J1-J11)."""

    version: DocumentVersion
    plan_id: PlanId
    requirements: tuple[RequirementRef, ...]
    targets: tuple[RelativePath, ...]
    expected_changes: tuple[Text, ...]
    risk: Literal["low", "medium", "high"]
    limits: LimitsText = LimitsText()
    coverage_min_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    branch: Annotated[str, msgspec.Meta(pattern="^agent/[A-Za-z0-9._/-]{1,150}$")] | None = None
    promote_to: Literal["development", "none"] = "development"
    security_gate: Literal["high", "medium"] = "high"
    stop_conditions: tuple[Name, ...] = ()
    agent: Name | None = None
    model: Name | None = None
