"""What the agent is told: goal, acceptance tests, bounds and what the last iteration's tests said.

Deterministic text from the contract and the judges' facts. The agent's own words never come back into it.
"""

from collections.abc import Sequence

from inbounds.contracts.bound import Contract
from inbounds.contracts.job import WORK

FAILING_MAX = 40  # ids named; more would be noise in a model's context
OUTPUT_CHARS_MAX = 6_000  # the tail of the test output, where pytest puts its summary


def compose(contract: Contract, n: int, failing: Sequence[str], output: str) -> str:
    """The prompt of iteration `n`; `failing` and `output` are from the last judged tree ("" at first)."""
    lines = [contract.goal, "", "Acceptance tests that must pass (they are read-only and restored before judgement):"]
    lines += [f"- {pin.test}" for pin in contract.acceptance]
    lines += ["", "You may change:", *(f"- {target}" for target in contract.targets)]
    lines += [
        "",
        "Test files that are there already are restored, too, unless named above: put new tests into new files.",
    ]
    prohibited = [text for r in contract.requirements for text in (*r.prohibited, *r.security)]
    if prohibited:
        lines += ["", "You must not:", *(f"- {text}" for text in prohibited)]
    lines += [
        "",
        f"The repository is at {WORK}; you see the directory {contract.thread} of it and what it needs.",
        "There is no network. The tool run_tests runs the tests. Work until they pass, then end with a short summary.",
    ]
    if n > 1:
        lines += ["", f"This is iteration {n}. Tests that fail now:", *(f"- {test}" for test in failing[:FAILING_MAX])]
        if output:
            lines += ["", "The end of the last test run:", output[-OUTPUT_CHARS_MAX:]]
    return "\n".join(lines)
