"""What a person does next: the headline of a run, and the exact commands, from its manifest alone.

Used by the report, the terminal and the notices, so that all three say the same.
"""

from dataclasses import dataclass
from typing import Any

from inbounds.contracts.reasons import MEANING, StopCode

OTHER = "not observed"


@dataclass(frozen=True, slots=True)
class Advice:
    """`tone` is good, warn or bad; `steps` are (command, what it does), most useful first."""

    tone: str
    code: str
    headline: str
    why: str
    state: str
    needs_decision: bool
    steps: tuple[tuple[str, str], ...]


_STATE = {
    "keep": "The commits stand on the agent branch, outside your repository.",
    "revert": "The workspace went back to its last safe checkpoint; the commits up to it stand on the agent branch.",
    "quarantine": "The workspace is quarantined: kept as it was for you to look at, and nothing of it is used.",
}
_MENDS: dict[StopCode, tuple[str, str]] = {
    StopCode.STOP_BUDGET_EXCEEDED: ("inbounds budget", "see what is left of run, thread and month"),
    StopCode.STOP_PREFLIGHT_FAILED: ("inbounds check", "see which precondition fails, and where its value comes from"),
    StopCode.STOP_HOST_FAILED: ("inbounds doctor", "see what this host enforces and lacks"),
    StopCode.STOP_GATEWAY_FAILED: ("inbounds doctor", "see what this host enforces and lacks"),
    StopCode.STOP_AGENT_FAILED: ("inbounds doctor", "see which agents start on this host"),
}


def advise(manifest: dict[str, Any]) -> Advice:
    """Read exit and promotion off the manifest; a run without an end is said to be unfinished, never done."""
    run = str(manifest["run"]["run_id"])
    leave = manifest["exit"]
    code, disposal = str(leave["code"]), str(leave["disposal"])
    try:
        known = StopCode(code)
    except ValueError:
        return Advice(
            "warn",
            code if code != OTHER else "UNFINISHED",
            "This run has not ended",
            "Its journal has no stop event with a known reason.",
            "Nothing of it is released.",
            True,
            ((f"inbounds status {run}", "see whether it is alive"), (f"inbounds stop {run}", "end it in order")),
        )
    if known is StopCode.DONE:
        return _done(manifest, run, str(leave["condition"]))
    steps = [(f"inbounds logs {run}", "read what happened, second by second")]
    if known in _MENDS:
        steps.insert(0, _MENDS[known])
    steps += [
        (f"inbounds resume {run}", "let it go on; it needs your signature"),
        (f"inbounds discard {run}", "delete its workspace and branch; the evidence stays"),
    ]
    tone = "bad" if disposal == "quarantine" else "warn"
    meaning = MEANING[known][1]
    return Advice(
        tone,
        code,
        f"Stopped: {meaning}",
        str(leave["condition"]),
        _STATE.get(disposal, "Nothing of it is released."),
        True,
        tuple(steps),
    )


def _done(manifest: dict[str, Any], run: str, why: str) -> Advice:
    branch = str(manifest["source"]["branch"])
    store = str(manifest["source"]["store"])
    last = manifest["promotion"][-1] if manifest["promotion"] else None
    fetch = (f"git fetch {_quoted(store)} {_quoted(branch)}", "bring the branch into your repository")
    if last is not None and last.get("outcome") == "promoted":
        target = str(last.get("target"))
        landed = (
            (f"inbounds review {run}", "read it, then sign or reject"),
            fetch,
            (f"inbounds rollback {run}", f"take it off {target} again"),
        )
        return Advice("good", "DONE", f"Done, and on {target}", why, _STATE["keep"], False, landed)
    steps = (
        (f"inbounds review {run}", "read it, then sign or reject"),
        (f"inbounds promote {run}", "let the gate check it and move it to its target"),
        fetch,
        (f"inbounds discard {run}", "delete its workspace and branch; the evidence stays"),
    )
    if last is not None and last.get("outcome") == "rolled_back":
        head, tone = f"Done, and taken off {last.get('target')} again", "warn"
    elif last is not None:
        head, tone = f"Done, but the gate did not let it onto {last.get('target')}", "warn"
        why = "; ".join(str(reason) for reason in last.get("reasons", [])) or why
    else:
        head, tone = "Done, and waiting for you", "good"
    return Advice(tone, "DONE", head, why, _STATE["keep"], True, steps)


def _quoted(word: str) -> str:
    """For a shell: these words are the supervisor's, but a copied command must never hold more than one."""
    safe = word and all(char.isalnum() or char in "/._-@:+" for char in word) and not word.startswith("-")
    return word if safe else "'" + word.replace("'", "'\\''") + "'"
