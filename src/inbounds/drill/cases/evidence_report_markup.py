"""Scripts, frames and event handlers in what an agent says and names, in the report that a person opens in a browser."""

import html.parser
from collections.abc import Mapping
from typing import Any

from inbounds.console.report import Evidence, page
from inbounds.drill import kept
from inbounds.journal import chain, manifest
from inbounds.journal.verify import verify_run

CLASS = "evidence"
REQUIREMENT = "Q2"
KIND = "host"
EVIL = (
    "</td></pre></script><script>steal()</script><img src=x onerror=steal()><a href='javascript:steal()'>ok</a>"
    "\"'><svg onload=steal()><style>*{display:none}</style><iframe src=//evil.example></iframe><!-- {{7*7}} {% raw %}"
)


class _Active(html.parser.HTMLParser):
    """Elements and attributes that act, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what would run, load, or hide."""
        if tag in {"script", "iframe", "object", "embed", "base", "form", "img", "link"}:
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name, value in attrs if name.startswith("on") or "script:" in str(value)]


def _active(text: str) -> list[str]:
    parser = _Active()
    parser.feed(text)
    return parser.found


def _steps() -> list[kept.Step]:
    change = {"status": "A", "path": EVIL, "old_mode": "", "new_mode": "100644"}
    finding = {"rule": EVIL, "severity": "high", "path": EVIL, "message": EVIL, "line": 1}
    return [
        ("agent.said", {"n": 1, "text": EVIL}),
        ("denial", {"kind": "name", "what": EVIL, "detail": EVIL, "sensitive": False}),
        ("snapshot.taken", {"n": 1, "tree": "a" * 40, "changes": [change], "changed": 1, "complete": True, "why": ""}),
        ("verdict", {"n": 1, "judge": "scope", "outcome": "FAIL", "summary": EVIL, "findings": [finding]}),
        ("stop.decided", {"code": "STOP_SCOPE_EXCEEDED", "why": EVIL, "disposal": "quarantine"}),
    ]


def control(_: Any) -> dict[str, Any]:
    """Strings put together, as in many a report."""
    return {"active": _active("<table>" + "".join(f"<tr><td>{kind}: {data}" for kind, data in _steps()))}


def attack(arena: Any) -> dict[str, Any]:
    """The real page over a real journal."""
    run = kept.write(arena.scratch, what=_steps())
    records = tuple(chain.records(run / kept.JOURNAL))
    text = page(
        Evidence(records, manifest.derive(records), {"goal": EVIL}, {"can_write": [EVIL]}, None, verify_run(run))
    )
    if "steal()" not in text:
        raise ValueError("the text was not shown at all, so that nothing was tried")
    return {"active": _active(text)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What of the page acts."""
    active = after["said"]["active"]
    return ("ESCAPED" if active else "BLOCKED"), f"acting parts of the page: {', '.join(active) or 'none'}"
