"""Why a run ended: the stop codes of E15 and those this project adds, each with its meaning.

The names are fixed (issue trackers and scripts rely on them). Standard library only: the kernel uses it.
"""

from enum import StrEnum


class StopCode(StrEnum):
    """A run's reason code; DONE is the only one that keeps the result without a person's look."""

    DONE = "DONE"
    STOP_SECURITY_VIOLATION = "STOP_SECURITY_VIOLATION"
    STOP_SECRET_EXPOSURE = "STOP_SECRET_EXPOSURE"  # noqa: S105 - a reason code, no password
    STOP_UNAUTHORIZED_ACCESS = "STOP_UNAUTHORIZED_ACCESS"
    STOP_BUDGET_EXCEEDED = "STOP_BUDGET_EXCEEDED"
    STOP_NO_PROGRESS = "STOP_NO_PROGRESS"
    STOP_RUNTIME_EXCEEDED = "STOP_RUNTIME_EXCEEDED"
    STOP_SCOPE_EXCEEDED = "STOP_SCOPE_EXCEEDED"
    STOP_FILES_EXCEEDED = "STOP_FILES_EXCEEDED"
    STOP_TOOL_CALLS_EXCEEDED = "STOP_TOOL_CALLS_EXCEEDED"
    STOP_ITERATIONS_EXCEEDED = "STOP_ITERATIONS_EXCEEDED"
    STOP_RESOURCES_EXCEEDED = "STOP_RESOURCES_EXCEEDED"
    STOP_COVERAGE_REGRESSED = "STOP_COVERAGE_REGRESSED"
    STOP_TESTS_WEAKENED = "STOP_TESTS_WEAKENED"
    STOP_ANOMALY = "STOP_ANOMALY"
    STOP_TAMPERING = "STOP_TAMPERING"
    STOP_PREFLIGHT_FAILED = "STOP_PREFLIGHT_FAILED"
    STOP_HOST_FAILED = "STOP_HOST_FAILED"
    STOP_GATEWAY_FAILED = "STOP_GATEWAY_FAILED"
    STOP_AGENT_FAILED = "STOP_AGENT_FAILED"
    STOP_OPERATOR = "STOP_OPERATOR"
    STOP_ESCALATION_UNANSWERED = "STOP_ESCALATION_UNANSWERED"


class Disposal(StrEnum):
    """What happens to the workspace at a stop (E13)."""

    KEEP = "keep"
    REVERT = "revert"
    QUARANTINE = "quarantine"


# the step of the stop sequence that says that it was done
DISPOSED: dict[str, str] = {
    Disposal.KEEP: "kept",
    Disposal.REVERT: "reverted",
    Disposal.QUARANTINE: "quarantined",
}


MEANING: dict[StopCode, tuple[Disposal, str]] = {
    StopCode.DONE: (Disposal.KEEP, "every acceptance test passes and no judge objects"),
    StopCode.STOP_SECURITY_VIOLATION: (Disposal.QUARANTINE, "a security judge found a critical or high finding"),
    StopCode.STOP_SECRET_EXPOSURE: (Disposal.QUARANTINE, "a credential appeared in what was written or sent"),
    StopCode.STOP_UNAUTHORIZED_ACCESS: (
        Disposal.QUARANTINE,
        "the agent reached for something outside its bounds: a decoy credential, a denied name or destination",
    ),
    StopCode.STOP_BUDGET_EXCEEDED: (Disposal.REVERT, "the next request would not fit any more under a cap"),
    StopCode.STOP_NO_PROGRESS: (Disposal.REVERT, "as many iterations as the plan allows passed without progress"),
    StopCode.STOP_RUNTIME_EXCEEDED: (Disposal.REVERT, "the run's wall-clock limit passed"),
    StopCode.STOP_SCOPE_EXCEEDED: (Disposal.QUARANTINE, "the tree differs where the plan declared nothing"),
    StopCode.STOP_FILES_EXCEEDED: (Disposal.QUARANTINE, "more files were changed than the plan allows"),
    StopCode.STOP_TOOL_CALLS_EXCEEDED: (Disposal.REVERT, "the model asked for more tool calls than allowed"),
    StopCode.STOP_ITERATIONS_EXCEEDED: (Disposal.REVERT, "all iterations are used and the tests still fail"),
    StopCode.STOP_RESOURCES_EXCEEDED: (Disposal.QUARANTINE, "memory, processes, disk or a GPU went over the ceiling"),
    StopCode.STOP_COVERAGE_REGRESSED: (Disposal.REVERT, "the tests cover less than the declared tolerance allows"),
    StopCode.STOP_TESTS_WEAKENED: (Disposal.QUARANTINE, "a test that judges the run was changed or removed"),
    StopCode.STOP_ANOMALY: (Disposal.QUARANTINE, "a rule over tree and journal found what policy stops at"),
    StopCode.STOP_TAMPERING: (Disposal.QUARANTINE, "a frozen contract or the journal is not what it was"),
    StopCode.STOP_PREFLIGHT_FAILED: (Disposal.REVERT, "the run did not start: a precondition does not hold"),
    StopCode.STOP_HOST_FAILED: (Disposal.QUARANTINE, "the host or the supervisor failed during the run"),
    StopCode.STOP_GATEWAY_FAILED: (Disposal.REVERT, "the gateway died: nothing can be metered, so nothing runs"),
    StopCode.STOP_AGENT_FAILED: (Disposal.REVERT, "the agent could not be started or kept failing by itself"),
    StopCode.STOP_OPERATOR: (Disposal.REVERT, "a person stopped the run"),
    StopCode.STOP_ESCALATION_UNANSWERED: (
        Disposal.REVERT,
        "nobody answered an escalation in the time that policy gives",
    ),
}
