"""The anomalies judge (H16-H20): every rule over one iteration's tree and the journal so far, as one verdict.

Pure. What a rule's firing leads to stands in the frozen contract: "note" is told and passes; "block" is FAIL with
findings below high, so that the run goes on and the gate does not open by itself; "stop" is FAIL with a high finding.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inbounds.contracts.anomalies import ACTIONS, DEFAULT_ACTIONS, NUMBERS, Action
from inbounds.contracts.verdict import Finding, Outcome, Severity, Verdict
from inbounds.judges import globs
from inbounds.judges.anomalies import dependencies, pipelines, repetition, sensitive, size, types, vendored
from inbounds.judges.anomalies.material import Material, Signal
from inbounds.judges.anomalies.repetition import JUDGE, History
from inbounds.judges.scope import shown

FINDINGS_MAX = 200  # a person reads the first dozen; the counts by rule are in the facts
MESSAGE_CHARS_MAX = 2_000  # names in it were chosen by an agent
SEVERITY: dict[Action, Severity] = {"note": Severity.NOTE, "block": Severity.MEDIUM, "stop": Severity.HIGH}


@dataclass(frozen=True, slots=True)
class Terms:
    """What policy says: the action by rule, thresholds by key, patterns of security-critical paths."""

    actions: Mapping[str, Action]
    numbers: Mapping[str, int]
    paths: tuple[globs.Pattern, ...] = ()


DEFAULT = Terms(DEFAULT_ACTIONS, NUMBERS)


@dataclass(frozen=True, slots=True)
class Iteration:
    """Which iteration ended in which tree, what the run started from, and what the journal says so far."""

    n: int
    tree: str
    base_tree: str
    history: History


def judge(material: Material, iteration: Iteration | None = None, terms: Terms = DEFAULT) -> Verdict:
    """PASS with notes, or FAIL where a rule fired that blocks or stops. `iteration` None: the trees alone are judged.

    facts: step_lines, lines_added, lines_removed, files, binary_bytes, rules (how often each fired), actions,
    tool_calls.
    """
    measures = [size.measure(change) for change in material.changes]
    fired = list(_signals(material, measures, iteration, terms))
    findings = [_finding(signal, terms) for signal in fired]
    rank = list(Severity)
    findings.sort(key=lambda f: (rank.index(f.severity), f.rule, f.path, f.line))
    actions = {s.rule: _action(s, terms) for s in sorted(fired, key=lambda s: ACTIONS.index(_action(s, terms)))}
    facts: dict[str, Any] = {
        "step_lines": material.step_lines,
        "lines_added": sum(m.added for m in measures),
        "lines_removed": sum(m.removed for m in measures),
        "files": len(material.changes),
        "binary_bytes": sum(m.binary for m in measures),
        "rules": dict(sorted(Counter(signal.rule for signal in fired).items())),
        "actions": actions,
        "findings_left_out": max(0, len(findings) - FINDINGS_MAX),
        "tool_calls": (iteration.history if iteration else History()).compared,
    }
    grave = [f for f in findings if f.severity is not Severity.NOTE]
    kept = tuple(findings[:FINDINGS_MAX])
    if grave:
        verb = "stops the run" if any(f.severity is Severity.HIGH for f in grave) else "a person must look"
        first = f"{grave[0].rule} {grave[0].path}".rstrip()
        return Verdict(JUDGE, Outcome.FAIL, f"{len(grave)} anomaly finding(s), {verb}; first: {first}", kept, facts)
    summary = f"{len(findings)} note(s)" if findings else "nothing out of the ordinary"
    return Verdict(JUDGE, Outcome.PASS, summary, kept, facts)


def _signals(
    material: Material, measures: Sequence[size.Measure], iteration: Iteration | None, terms: Terms
) -> Iterator[Signal]:
    yield from types.signals(material)
    yield from size.signals(material, measures, terms.numbers, iteration.history.earlier_lines if iteration else 0)
    yield from dependencies.signals(material)
    yield from vendored.signals(material)
    yield from pipelines.signals(material)
    yield from sensitive.signals(material, terms.paths)
    if iteration is not None:
        yield from repetition.signals(
            iteration.history, iteration.n, iteration.tree, iteration.base_tree, terms.numbers
        )


def _action(signal: Signal, terms: Terms) -> Action:
    return "note" if signal.declared else terms.actions[signal.rule]


def _finding(signal: Signal, terms: Terms) -> Finding:
    message = shown(signal.message)[:MESSAGE_CHARS_MAX]
    severity = SEVERITY[_action(signal, terms)]
    return Finding(f"anomaly.{signal.rule}", severity, shown(signal.path), message, signal.line)
