"""Writes docs/stop-codes.md and the generated parts of docs/stop-codes/<CODE>.md from the code (E15); --check compares.

A page's facts and what was preserved come from the code and stand between markers; the rest of a page is written by
people and kept as it is. A code without a page, or a page without a code, is a fault.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import state_diagram

from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED
from inbounds.contracts.limits import BY_KEY
from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.kernel.decide import PART_STOPS, RULE_STOPS
from inbounds.kernel.events import EVENTS, Judged

PAGE = Path(__file__).resolve().parents[1] / "docs" / "stop-codes.md"
PAGES = PAGE.parent / "stop-codes"
SECTIONS = ("## What it means", "## What was preserved", "## How to go on")
_BLOCK = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
# The limits of the policy that lead to a code; state_diagram knows the events.
LIMITS: dict[StopCode, tuple[str, ...]] = {
    StopCode.STOP_BUDGET_EXCEEDED: ("budget_usd", "tokens"),
    StopCode.STOP_NO_PROGRESS: ("no_progress",),
    StopCode.STOP_RUNTIME_EXCEEDED: ("wall_clock",),
    StopCode.STOP_FILES_EXCEEDED: ("file_changes", "iteration_file_changes"),
    StopCode.STOP_TOOL_CALLS_EXCEEDED: ("tool_calls",),
    StopCode.STOP_ITERATIONS_EXCEEDED: ("iterations",),
    StopCode.STOP_RESOURCES_EXCEEDED: ("memory", "disk", "inodes"),
    StopCode.STOP_UNAUTHORIZED_ACCESS: ("denials",),
    StopCode.STOP_HOST_FAILED: ("restarts",),
}
AFTER = {
    Disposal.KEEP: "the agent branch is kept for review",
    Disposal.REVERT: "the workspace goes back to the last safe checkpoint",
    Disposal.QUARANTINE: "the workspace is set aside, unreachable for a run, until a person has looked",
}
WORKSPACE = {
    Disposal.KEEP: (
        "**Workspace**: gone; all of it is in the last commit on the agent branch.",
    ),
    Disposal.REVERT: (
        "**Workspace**: `workspace/` in the run's directory, put back to the last checkpoint: the last committed tree",
        "to which no judge objected, or the base. What the last iteration left is in the evidence commit alone.",
    ),
    Disposal.QUARANTINE: (
        "**Workspace**: moved to `quarantine/` in the run's directory (that of a later leg to `quarantine-2/`, and so",
        "on), readable to you alone and used by no run. An agent may have written any of it: look, and run nothing.",
    ),
}  # fmt: skip
EVIDENCE = (
    "**Agent branch**: `agent/PLAN/RUN` in the trusted store, a commit for each judged iteration. To have it:",
    "`git fetch STORE BRANCH`, with `store` and `branch` of the manifest's `source`.",
    "**Evidence commit**: `refs/inbounds/evidence/RUN` in the same store, the tree as the stop found it, whatever",
    "became of the workspace; its difference to the base is `diff.patch` in the run's directory. To have files of it:",
    "`inbounds logs RUN --at SEQ --to DIR`.",
    "**Journal, manifest, report, logs**: in `$INBOUNDS_HOME/runs/RUN/`; `inbounds logs RUN` tells them,",
    "`inbounds verify RUN` re-checks them.",
)


def policy(code: StopCode) -> str:
    """What policy can make of the table's word."""
    if MEANING[code][0] is Disposal.REVERT:
        return f"quarantine with `quarantine: [{code}]`"
    return "cannot be loosened" if MEANING[code][0] is Disposal.QUARANTINE else "as it is"


def index() -> str:
    """docs/stop-codes.md."""
    rows = [
        f"| [`{code}`](stop-codes/{code}.md) | {MEANING[code][1]} | {MEANING[code][0]} | {policy(code)} |"
        for code in StopCode
    ]
    return "\n".join(
        [
            "# Stop codes",
            "",
            "Every run ends with exactly one of these, and so does every leg of a run that people let go on. Written",
            "by `tools/stop_codes.py` from `inbounds.contracts.reasons`; do not edit by hand. How a run comes to its",
            "stop: [the state machine](state-machine.md).",
            "",
            "| code | the run ended because | workspace | policy, `conduct` |",
            "|---|---|---|---|",
            *rows,
            "",
            "What happens to the workspace:",
            "",
            *(f"- **{disposal}**: {text}" for disposal, text in AFTER.items()),
            "",
            "`conduct.quarantine` in `policy.yaml` names codes that quarantine where this table says revert; nothing",
            "turns a quarantine into less. A run that `inbounds stop --all` ended for an incident is quarantined, too.",
            "The last safe checkpoint is the last committed tree to which no judge objected, or the base.",
            "",
            "Nothing resumes after a stop without a person's signed decision (`inbounds resume`).",
            "",
        ]
    )


def causes(code: StopCode, found: state_diagram.Found) -> Iterator[str]:
    """The events that lead to the code, as decide() was seen to answer them."""
    for event in EVENTS:
        if event is Judged:
            rules = [f"`{prefix}*`" for prefix, named in RULE_STOPS if named is code]
            if code is StopCode.STOP_SECURITY_VIOLATION:
                rules.append("any rule that is named by no other code")
            if rules:
                yield f"`{event.KIND}` with a critical or high finding of {', '.join(rules)}"
            continue
        words = {
            words: None
            for (_, kind), by_case in found.items()
            for words, outcomes in by_case.items()
            if kind == event.KIND and any(outcome[2] == code for outcome in outcomes)
        }
        if words:
            yield f"`{event.KIND}`" + ("" if "" in words else f" ({'; '.join(words)})")


def facts(code: StopCode, found: state_diagram.Found) -> list[str]:
    """What the code knows about a code."""
    disposal, meaning = MEANING[code]
    kept = code is StopCode.DONE
    lines = [
        "| | |",
        "|---|---|",
        f"| the run ended because | {meaning} |",
        f"| workspace | {disposal}: {AFTER[disposal]} |",
        f"| policy, `conduct` | {policy(code)} |",
        f"| exit status of `inbounds run` | {EXIT_KEPT if kept else EXIT_REFUSED} |",
        f"| decided on | {'<br>'.join(causes(code, found))} |",
    ]
    parts = [part for part, named in PART_STOPS.items() if named is code]
    if parts:
        lines.append(f"| the part that failed | {', '.join(parts)} |")
    for key in LIMITS.get(code, ()):
        rule = BY_KEY[key]
        lines.append(f"| limit `{key}` | {rule.written(rule.default)} unless you say otherwise: {rule.why} |")
    return lines


def preserved(code: StopCode) -> list[str]:
    """Where everything is."""
    lines = (*WORKSPACE[MEANING[code][0]], *EVIDENCE)
    return [f"- {line}" if line.startswith("**") else f"  {line}" for line in lines]


def page(code: StopCode, text: str, found: state_diagram.Found) -> str:
    """A code's page with its generated parts renewed; what people wrote is kept."""
    made = {"facts": facts(code, found), "preserved": preserved(code)}

    def renewed(block: re.Match[str]) -> str:
        return "\n".join([f"<!-- generated: {block[1]} -->", *made[block[1]], "<!-- end -->"])

    return _BLOCK.sub(renewed, text)


def faults(code: StopCode, text: str) -> list[str]:
    """What a page lacks."""
    wanted = (f"# {code}\n", *SECTIONS, "<!-- generated: facts -->", "<!-- generated: preserved -->")
    lacking = [f"{code}.md lacks {part.strip()!r}" for part in wanted if part not in text]
    sections = re.split(r"^## .*$", _BLOCK.sub("generated", text), flags=re.MULTILINE)[1:]
    return lacking + [f"{code}.md has an empty section" for section in sections if not section.strip()]


def pages() -> dict[Path, str]:
    """Every page as it ought to be; SystemExit where one has to be written by a person first."""
    found = state_diagram.explore()
    strays = {path.stem for path in PAGES.glob("*.md")} - set(StopCode)
    wrong = [f"docs/stop-codes/{name}.md is of no stop code" for name in sorted(strays)]
    made = {PAGE: index()}
    for code in StopCode:
        path = PAGES / f"{code}.md"
        if not path.exists():
            wrong.append(f"docs/stop-codes/{code}.md is missing: write {', '.join(SECTIONS)}")
            continue
        text = path.read_text(encoding="utf-8")
        wrong += faults(code, text)
        made[path] = page(code, text, found)
    if wrong:
        sys.exit("\n".join(wrong))
    return made


def stale() -> list[Path]:
    """Pages that are not what the code says now."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" not in sys.argv:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
    elif old := stale():
        sys.exit(f"not current: {', '.join(p.name for p in old)}; type: .venv/bin/python tools/stop_codes.py")
