"""Writes docs/stop-codes.md from the meanings in the code (E15); --check says whether the page is current."""

import sys
from pathlib import Path

from inbounds.contracts.reasons import MEANING, Disposal, StopCode

PAGE = Path(__file__).resolve().parents[1] / "docs" / "stop-codes.md"
AFTER = {
    Disposal.KEEP: "the agent branch is kept for review",
    Disposal.REVERT: "the workspace goes back to the last safe checkpoint",
    Disposal.QUARANTINE: "the workspace is set aside, unreachable for a run, until a person has looked",
}


def page() -> str:
    """The whole page."""
    rows = [f"| `{code}` | {MEANING[code][1]} | {MEANING[code][0]} |" for code in StopCode]
    after = [f"- **{disposal}**: {text}" for disposal, text in AFTER.items()]
    return "\n".join(
        [
            "# Stop codes",
            "",
            "Every run ends with exactly one of these. Written by `tools/stop_codes.py` from",
            "`inbounds.contracts.reasons`; do not edit by hand.",
            "",
            "| code | the run ended because | workspace |",
            "|---|---|---|",
            *rows,
            "",
            "What happens to the workspace:",
            "",
            *after,
            "",
            "Nothing resumes after a stop without a person's signed decision (`inbounds resume`).",
            "",
        ]
    )


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not current; type: .venv/bin/python tools/stop_codes.py")
