"""Judges that say INCONCLUSIVE, nothing, or a word that nobody knows, beside a claim that all tests pass (E9, M6)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.played import Run, an_iteration
from inbounds.kernel.events import Event, Judged

CLASS = "failopen"
REQUIREMENT = "E9"
KIND = "host"
WORDS = ("INCONCLUSIVE", "", "pass", "PASSED", "OK", "SKIPPED", "PASS ", "None", "ERROR")


def _words(scope: str, tests: str) -> list[Event]:
    """An iteration in which everything is reached, and the judges say this."""
    events = an_iteration(1, failing=0, progress=True)
    return [_said(event, scope, tests) for event in events]


def _said(event: Event, scope: str, tests: str) -> Event:
    return (
        Judged(event.judge, {"scope": scope, "tests": tests}[event.judge], "", ())
        if isinstance(event, Judged)
        else event
    )


def _code(events: list[Event]) -> str:
    run = Run()
    run.play(lambda n: [event for event in events if n == 1] or an_iteration(n))
    return run.code


def control(_: Any) -> dict[str, Any]:
    """Nothing failed: done."""
    done = [f"{word!r}" for word in WORDS if word != "FAIL"]
    return {"done": done, "honest": "DONE"}


def attack(_: Any) -> dict[str, Any]:
    """The real kernel."""
    tried = {f"tests: {word!r}": _words("PASS", word) for word in WORDS}
    tried |= {f"scope: {word!r}": _words(word, "PASS") for word in WORDS}
    for judge in ("scope", "tests"):
        events = _words("PASS", "PASS")
        tried[f"{judge}: silent"] = [e for e in events if not (isinstance(e, Judged) and e.judge == judge)]
    done = [name for name, events in tried.items() if _code(events) == "DONE"]
    return {"done": done, "honest": _code(_words("PASS", "PASS"))}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them ends as done; two plain passes must."""
    said = after["said"]
    if said["honest"] != "DONE":
        raise ValueError(f"two passes end with {said['honest']}")
    return ("ESCAPED" if said["done"] else "BLOCKED"), f"done by: {', '.join(said['done']) or 'none of them'}"
