"""Writes docs/state-machine.md: the kernel's phases, events and effects, found by walking through decide() itself.

Nothing is written down twice: every reachable kind of state is asked about every kind of event, with limits so small
that each rule is met. --check says whether the page is current. Needs the product alone; the page is always the same.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from inbounds.contracts import conduct
from inbounds.contracts.limits import DEFAULT
from inbounds.contracts.reasons import StopCode
from inbounds.kernel import effects as fx
from inbounds.kernel import events as ev
from inbounds.kernel.decide import PART_STOPS, RULE_STOPS, decide
from inbounds.kernel.effects import Effect, RecordStop
from inbounds.kernel.events import EVENTS, Event
from inbounds.kernel.state import Phase, State

PAGE = Path(__file__).resolve().parents[1] / "docs" / "state-machine.md"
STATES_MAX = 20_000  # kinds of states; far above what these small limits make
NOW, LATE = 1_000, 10_000_000_000  # ms: within the wall-clock limit, and behind every one
SMALL = replace(
    DEFAULT, iterations=2, no_progress=2, turns=2, tool_calls=4, file_changes=2, iteration_file_changes=1, denials=2,
    tokens=1_000, restarts=1, budget_micro_usd=100, wall_clock_ms=1_000_000,
)  # fmt: skip
CONDUCT = replace(
    conduct.DEFAULT, slow_at_percent=50, slow_interval_ms=1_000, escalate_at_percent=90, escalate_wait_ms=10_000
)
LEG = [phase for phase in Phase if phase not in (Phase.NEW, Phase.STOPPING, Phase.FINISHED)]
ASKED = fx.stop_sequence(StopCode.DONE, "", conduct.DEFAULT.disposal(StopCode.DONE), "")

Case = tuple[str, Event, int]


def cases(state: State) -> Iterator[Case]:
    """What may happen now, one case for each way in which a rule may look at an event: words for it, event, time."""
    yield from _beginning(state)
    yield from _agent(state)
    yield from _judges(state)
    yield from _outside(state)
    yield from _people(state)


def _beginning(state: State) -> Iterator[Case]:
    n = state.n
    yield "", ev.Accepted(SMALL, "standard", ("scope", "tests"), CONDUCT), NOW
    yield "all holds", ev.PreflightFinished(ok=True, reasons=(), failing=1), NOW
    yield "something does not hold", ev.PreflightFinished(ok=False, reasons=("x",), failing=1), NOW
    yield "the one asked for", ev.IterationStarted(n), NOW
    yield "all stands", ev.Reopened(ok=True, reasons=()), NOW
    yield "something does not hold", ev.Reopened(ok=False, reasons=("x",)), NOW


def _agent(state: State) -> Iterator[Case]:
    spent, budget, tokens = state.spent_micro_usd, state.limits.budget_micro_usd, state.limits.tokens
    yield "one more request", ev.Usage(spent, 1, 0, 0), NOW
    yield "near a limit", ev.Usage(spent, tokens // 2, 0, 0), NOW
    yield "near the budget", ev.Usage(budget * 9 // 10, 1, 0, 0), NOW
    yield "budget spent", ev.Usage(budget, 1, 0, 0), NOW
    yield "tokens used", ev.Usage(spent, tokens, 0, 0), NOW
    yield "tool calls used", ev.Usage(spent, 1, 0, state.limits.tool_calls + 1), NOW
    yield "turns of the iteration used", ev.ModelRefused("spent", "turns"), NOW
    yield "a cap of money", ev.ModelRefused("spent", "month"), NOW
    yield "tool calls used", ev.ModelRefused("spent", "tool_calls"), NOW
    yield "this request only", ev.ModelRefused("too large", "request"), NOW
    yield "paused, paced or closed", ev.ModelRefused("paused", ""), NOW
    yield "an ordinary one", ev.Denial("name", "x", sensitive=False), NOW
    yield "a sensitive target", ev.Denial("decoy", "x", sensitive=True), NOW
    yield "the agent's, at its end", ev.JailExited("coder", "exited", state.n), NOW
    yield "the agent's, out of memory", ev.JailExited("coder", "memory", state.n), NOW
    yield "the agent's, not started", ev.JailExited("coder", "failed", state.n), NOW
    yield "another role's", ev.JailExited("tester", "exited", state.n), NOW


def _judges(state: State) -> Iterator[Case]:
    n = state.n
    whole = ev.SnapshotTaken(n, f"tree{n}", 1, 1, complete=True, why="")
    yield "whole", whole, NOW
    yield "incomplete", replace(whole, complete=False, why="x"), NOW
    yield "too many files", replace(whole, changed=3), NOW
    yield "too many files in this iteration", replace(whole, iteration_changed=2), NOW
    for judge in ("scope", "tests"):
        yield "PASS", ev.Judged(judge, "PASS", "", ()), NOW
    yield "FAIL or INCONCLUSIVE", ev.Judged("tests", "FAIL", "", ()), NOW
    for prefix, _ in RULE_STOPS:
        yield "a grave finding", ev.Judged("security", "FAIL", "x", (f"{prefix}x",)), NOW
    yield "a grave finding", ev.Judged("security", "FAIL", "x", ("another.rule",)), NOW
    ended = ev.IterationFinished(n, f"tree{n}", True, True, 0, 0, 0)
    yield "progress", ended, NOW
    yield "no progress", replace(ended, progress=False, acceptance_failing=1), NOW
    yield "nothing changed", replace(ended, changed=False, progress=False, acceptance_failing=1), NOW
    yield "", ev.CommitMade(n, "c"), NOW


def _outside(state: State) -> Iterator[Case]:
    yield "in time", ev.Tick(), NOW
    yield "the wall-clock limit passed", ev.Tick(), LATE
    if state.escalated_until_ms:
        yield "nobody answered", ev.Tick(), state.escalated_until_ms
    yield "within the ceiling", ev.Polled(1, 1), NOW
    yield "over the ceiling", ev.Polled(state.limits.disk_bytes + 1, 1), NOW
    for part in (*PART_STOPS, "host"):
        yield part, ev.Failed(part, "x"), NOW
    yield "", ev.Recovered(0, 0, 0), NOW
    yield "near the budget by now", ev.Recovered(state.limits.budget_micro_usd * 9 // 10, 0, 0), NOW
    yield "the budget is spent by now", ev.Recovered(state.limits.budget_micro_usd, 0, 0), NOW


def _people(state: State) -> Iterator[Case]:
    raised = replace(state.limits, budget_micro_usd=state.limits.budget_micro_usd + 900)
    if state.version == 1:
        yield "the next version", ev.Amended(2, "ana", raised), NOW
        yield "below what is used", ev.Amended(2, "ana", replace(raised, tokens=1, iterations=1, tool_calls=1)), NOW
    yield "another version", ev.Amended(state.version, "ana", raised), NOW
    yield "", ev.OperatorStopped("ana", "x", incident=False), NOW
    yield "", ev.StopDecided("STOP_OPERATOR", "hash"), NOW
    yield "", ev.StopStep("killed", ok=True), NOW
    yield "", ev.Finished("STOP_OPERATOR"), NOW
    yield "bound to this stop, by enough people", ev.Reauthorized(state.stop_hash, ("ana",)), NOW
    yield "of another stop, or by too few", ev.Reauthorized("another", ()), NOW


def kind_of_state(state: State) -> tuple[object, ...]:
    """What the rules of its phase can tell apart; one state of each kind is asked."""
    phase = state.phase
    budget = state.limits.budget_micro_usd
    spent = (state.spent_micro_usd >= budget * 9 // 10) + (state.spent_micro_usd >= budget)
    most = state.limits.iterations
    rounds = (state.n > 0) + (state.n >= most) + (state.n > most)
    if phase in (Phase.STOPPING, Phase.FINISHED):
        ended = state.stop_code if state.stop_code in ("", StopCode.DONE) else "short"
        return (phase, rounds, ended, state.version, spent)
    pressed = (state.slowed, state.escalated_until_ms > 0, state.recoveries > 0, state.version)
    inside: tuple[object, ...] = (rounds, state.without_progress)
    if phase is Phase.REOPENING:
        inside = (*inside, state.resume_at, state.done, spent)
    elif phase is Phase.COMMITTING:
        inside = (*inside, state.done)
    elif phase is Phase.JUDGING:
        passed = all(outcome == "PASS" for outcome in state.verdicts.values())
        inside = (*inside, len(state.verdicts), passed, state.halted, state.iteration_turns > 0)
    elif phase is Phase.WORKING:
        inside = (*inside, state.denials, state.halted, min(state.iteration_turns, state.limits.turns))
    elif phase is Phase.SNAPSHOT:
        inside = (*inside, state.halted, state.iteration_turns > 0)
    return (phase, *pressed, *inside)


Outcome = tuple[str, tuple[str, ...], str]  # next phase, effects, stop code
Found = dict[tuple[Phase, str], dict[str, set[Outcome]]]


@cache
def explore() -> Found:
    """(phase, event kind) -> words for the case -> every outcome that decide() gave."""
    found: Found = defaultdict(lambda: defaultdict(set))
    todo, seen = [State()], {kind_of_state(State())}
    for state in todo:  # grows while it is walked: breadth first
        for words, event, at_ms in cases(state):
            after, effects = decide(state, event, at_ms)
            changed = "" if after == state else str(after.phase)
            found[state.phase, event.KIND][words].add((changed, _names(effects), _code(effects)))
            if kind_of_state(after) not in seen:
                seen.add(kind_of_state(after))
                todo.append(after)
        assert len(seen) < STATES_MAX, "a kind of state grows without bound"
    _complete(found)
    return found


def _code(effects: tuple[Effect, ...]) -> str:
    return next((str(effect.code) for effect in effects if isinstance(effect, RecordStop)), "")


def _names(effects: tuple[Effect, ...]) -> tuple[str, ...]:
    return () if _code(effects) else tuple(type(effect).__name__ for effect in effects)


def _complete(found: Found) -> None:
    """The walk met every phase, event, effect and stop code; otherwise the page would be silent about some."""
    outcomes = [outcome for cases_of in found.values() for each in cases_of.values() for outcome in each]
    missing = [
        *({*Phase} - {phase for phase, _ in found}),
        *({event.KIND for event in EVENTS} - {kind for _, kind in found}),
        *({str(code) for code in StopCode} - {code for _, _, code in outcomes}),
        *({effect.__name__ for effect in fx.Effect.__args__} - {type(e).__name__ for e in ASKED}
          - {name for _, names, _ in outcomes for name in names}),
    ]  # fmt: skip
    assert not missing, f"the walk did not meet {missing}"


# -- the page


def diagram(found: Found) -> list[str]:
    """Mermaid: one arrow for each pair of phases; stops are one arrow out of the box."""
    arrows: dict[tuple[Phase, str], list[str]] = defaultdict(list)
    for (phase, kind), by_case in found.items():
        for outcomes in by_case.values():
            for after, _, code in sorted(outcomes):
                if after and after != phase and not code and kind not in arrows[phase, after]:
                    arrows[phase, after].append(kind)
    over = (Phase.STOPPING, Phase.FINISHED)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> new", "    state leg {"]
    for phase in Phase:
        for after in Phase:
            if kinds := arrows.get((phase, after)):
                if phase in over or after in over:
                    continue
                lines.append(f"        {phase} --> {after}: {', '.join(_ordered(kinds))}")
    lines += ["    }", "    leg --> stopping: a stop rule, or stop.decided"]
    lines += [
        f"    {phase} --> {after}: {', '.join(_ordered(kinds))}"
        for phase in over
        for after in Phase
        if (kinds := arrows.get((phase, after)))
    ]
    return [*lines, "    finished --> [*]", "```"]


def _ordered(kinds: list[str]) -> list[str]:
    return [event.KIND for event in EVENTS if event.KIND in kinds]


def matrix(found: Found) -> list[str]:
    """Phase x event, in signs."""
    lines = ["| event | " + " | ".join(Phase) + " |", "|---|" + "---|" * len(Phase)]
    for event in EVENTS:
        cells = []
        for phase in Phase:
            outcomes = {outcome for each in found[phase, event.KIND].values() for outcome in each}
            signs = ["→" for after, _, code in outcomes if after not in ("", phase) and not code][:1]
            signs += ["✎" for after, _, code in outcomes if after == phase and not code][:1]
            signs += ["■" for _, _, code in outcomes if code][:1]
            cells.append("".join(signs) or "·")
        lines.append(f"| `{event.KIND}` | " + " | ".join(cells) + " |")
    return lines


def alike(found: Found) -> list[str]:
    """Kinds of events that do something wherever a leg is, and never lead to another of its phases."""
    return [
        event.KIND
        for event in EVENTS
        if all(
            (outcomes := _outcomes(found, phase, event.KIND))
            and all(after in ("", phase, Phase.STOPPING) for after, _, _ in outcomes)
            for phase in LEG
        )
    ]


def _outcomes(found: Found, phase: Phase, kind: str) -> set[Outcome]:
    return {outcome for each in found[phase, kind].values() for outcome in each if outcome[0] or outcome[1]}


def rows(kind: str, by_case: dict[str, set[Outcome]], phase: Phase | None) -> list[str]:
    """Lines of a table, cases that lead to the same in one."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for words, outcomes in by_case.items():
        kept = {outcome for outcome in outcomes if outcome[0] or outcome[1]}
        if kept:
            stops = ", ".join(code for code in StopCode if code in {outcome[2] for outcome in kept})
            lines[_steps(kept, phase), stops].append(words)
    said = []
    for (steps, stops), cases_of in lines.items():
        words = "; ".join(filter(None, cases_of))
        said.append(f"| `{kind}`" + (f" ({words})" if words else "") + f" | {steps} | {stops} |")
    return said


def _steps(outcomes: set[Outcome], phase: Phase | None) -> str:
    """Where to and with which effects; those that depend on the state in brackets."""
    there: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for after, effects, code in sorted(outcomes):
        if not code:
            there["noted" if after in ("noted", phase) else f"→ {after}"].append(effects)
    said = []
    for where, each in there.items():
        order = [name for effect in fx.Effect.__args__ for name in (effect.__name__,) if any(name in e for e in each)]
        always = ", ".join(name for name in order if all(name in effects for effects in each))
        perhaps = ", ".join(name for name in order if not all(name in effects for effects in each))
        words = f"{where}: {always}" if always else where
        said.append(f"{words} (perhaps {perhaps})" if perhaps else words)
    return "; ".join(said)


def details(phase: Phase, found: Found, common: list[str]) -> list[str]:
    """What each event does in one phase; without those that change nothing, or the same in all phases."""
    lines, idle = [], []
    for event in EVENTS:
        if not _outcomes(found, phase, event.KIND):
            idle.append(f"`{event.KIND}`")
        elif event.KIND not in common or phase not in LEG:
            lines += rows(event.KIND, found[phase, event.KIND], phase)
    head = ["| event | next: effects | may stop the run with |", "|---|---|---|"]
    table = [*head, *lines, ""] if lines else []
    return [f"### {phase}", "", *table, *([f"Changes nothing: {', '.join(idle)}.", ""] if idle else [])]


def everywhere(found: Found, common: list[str]) -> list[str]:
    """What the same events do in every phase of a leg."""
    lines = []
    for kind in common:
        by_case: dict[str, set[Outcome]] = defaultdict(set)
        for phase in LEG:
            for words, outcomes in found[phase, kind].items():
                by_case[words] |= {("noted" if after == phase else after, did, code) for after, did, code in outcomes}
        lines += rows(kind, by_case, None)
    return ["| event | effects | may stop the run with |", "|---|---|---|", *lines, ""]


def page() -> str:
    """The whole page."""
    found = explore()
    common = alike(found)
    lines = [
        "# The state machine of a run",
        "",
        "Written by `tools/state_diagram.py`, which walks through `decide(state, event)` of `inbounds.kernel.decide`;",
        "do not edit by hand. Events are the journal's records; effects are what the supervisor then does. A *leg* is",
        "a run from its start, or from a re-authorization, to its stop.",
        "",
        *diagram(found),
        "",
        "Every stop is the same sequence of effects, whatever its cause: "
        + ", ".join(f"`{type(effect).__name__}`" for effect in ASKED)
        + ".",
        "What each code means: [stop codes](stop-codes.md). Behind the wall-clock limit, or when nobody answered an",
        "escalation, every event stops the run that does not stop it by itself.",
        "",
        "## Every event in every phase",
        "",
        "→ goes to another phase, ✎ is noted or has effects in the same phase, ■ may stop the run, · changes nothing.",
        "",
        *matrix(found),
        "",
        "## In whichever phase of a leg, from its preflight on",
        "",
        "`HaltAgent` only while an agent works. Without a limit in reach an event is only noted.",
        "",
        *everywhere(found, common),
        "## Phase by phase",
        "",
    ]
    for phase in Phase:
        lines += details(phase, found, common)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not current; type: .venv/bin/python tools/state_diagram.py")
