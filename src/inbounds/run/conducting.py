"""Policy's `conduct` section in concrete numbers, or an error that says what to mend. Reads no file."""

from inbounds.contracts import documents as models
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.reasons import StopCode
from inbounds.contracts.units import duration
from inbounds.run.documents import POLICY


def conduct(policy: models.Policy) -> Conduct:
    """Policy's section in concrete numbers; OperatorError for a code or person that is not there."""
    said, where = policy.conduct, POLICY
    slow, escalation = said.slow_down, said.escalation
    unknown = [code for code in said.quarantine if code not in StopCode.__members__]
    names = [person.name for person in policy.operators]
    strangers = [name for name in said.resume.by if name not in names]
    if unknown or strangers:
        expected = "a stop code, see docs/stop-codes.md" if unknown else f"some of: {', '.join(names)}"
        raise OperatorError(f"conduct names {', '.join(unknown or strangers)}", where=where, expected=expected)
    able = len(said.resume.by or names)
    most = max(said.resume.approvals, said.resume.after_incident)
    if most > max(1, able):
        asked = f"conduct.resume asks for {most} approvals, {able} can give one"
        raise OperatorError(asked, where=where, expected="as many as there are people")
    try:
        return Conduct(
            slow_at_percent=slow.at_percent if slow else 0,
            slow_interval_ms=duration(slow.interval) if slow else 0,
            slow_cpu_percent=slow.cpu_percent if slow else 100,
            escalate_at_percent=escalation.at_percent if escalation else 0,
            escalate_wait_ms=duration(escalation.wait) if escalation else 0,
            quarantine=said.quarantine,
            resume_by=said.resume.by,
            resume_approvals=said.resume.approvals,
            incident_approvals=max(said.resume.approvals, said.resume.after_incident),
            recovery=said.recovery,
            snapshot_every_ms=duration(said.snapshots.every),
            snapshots_kept=said.snapshots.keep,
            timestamp_url=said.timestamp or "",
            timestamp_ca=said.timestamp_ca or "",
        )
    except ValueError as error:
        raise OperatorError(f"conduct: {error}", where=where, expected='a time such as "5s" or "10m"') from None
