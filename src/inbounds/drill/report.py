"""A drill's outcome as facts and as text: counts, the exit code, a table by class, and each escape with what to type.

Pure. Knows neither jails nor how a terminal is written to.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED
from inbounds.drill.case import OUTCOMES
from inbounds.drill.runner import ESCAPED, INCONCLUSIVE, NO_CONTROL, Result

COLUMNS = (*OUTCOMES, INCONCLUSIVE, NO_CONTROL)
SHOWN_MAX = 40  # of one kind of trouble; the JSON has them all


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The counts: how many cases said something, and how many of each other kind."""
    count = Counter(result.outcome for result in results)
    return {
        "counted": sum(result.counted for result in results),
        "escaped": count[ESCAPED],
        "no_control": count[NO_CONTROL],
        "inconclusive": count[INCONCLUSIVE],
        "outcomes": {name: count[name] for name in COLUMNS},
    }


def exit_code(counts: Mapping[str, Any]) -> int:
    """Kept only if nothing escaped, nothing is inconclusive, and something was counted at all."""
    clean = not counts["escaped"] and not counts["inconclusive"] and counts["counted"] > 0
    return EXIT_KEPT if clean else EXIT_REFUSED


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The report for a person."""
    out = [f"drill of {facts['ground']}, {facts['mode']} mode, host level {facts['level']}", ""]
    out += _table(facts["cases"])
    for outcome, words in (
        (ESCAPED, "ESCAPED: the attack reached what it must not"),
        (INCONCLUSIVE, "INCONCLUSIVE: the attack was not seen to be tried"),
        (NO_CONTROL, "NO CONTROL: the attack does not work outside either, so it says nothing here"),
    ):
        found = [case for case in facts["cases"] if case["outcome"] == outcome]
        if found:
            out += ["", words]
        for case in found[:SHOWN_MAX]:
            out.append(f"  {case['id']} ({case['requirement'] or 'no requirement'}): {case['observed']}")
            if outcome == ESCAPED:
                out.append("    type: inbounds doctor, for what this host does not enforce")
        if len(found) > SHOWN_MAX:
            out.append(f"  and {len(found) - SHOWN_MAX} more; see --json")
    counts = f"{facts['counted']} of {len(facts['cases'])} cases count, {facts['escaped']} escaped"
    out += ["", f"{counts}, in {facts['ms'] / 1000:.0f} s"]
    return out


def _table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    classes = list(dict.fromkeys(case["class"] for case in cases))
    used = [name for name in COLUMNS if any(case["outcome"] == name for case in cases)]
    head = "  ".join(f"{name:>{max(9, len(name))}}" for name in used)
    out = [f"  {'':12}{head}"]
    for klass in classes:
        count = Counter(case["outcome"] for case in cases if case["class"] == klass)
        row = "  ".join(f"{count[name] or '-':>{max(9, len(name))}}" for name in used)
        out.append(f"  {klass:12}{row}")
    return out
