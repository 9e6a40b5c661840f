"""Names that a Mac or a Windows check-out takes for others: .GIT/config, .g<zero width>it, git~1, trailing dots, wide
letters (CVE-2014-9390, CVE-2021-21300).
"""

from collections.abc import Mapping
from typing import Any

from inbounds.judges import scope

CLASS = "evidence"
REQUIREMENT = "B8"
KIND = "host"
NAMES = (
    ".GIT/config", ".g\u200cit/config", ".git./config", ".git /hooks/post-checkout", "GIT~1/config", "sub/.Git/config",
    "\uff0egit/config", ".gi\u0074\u034f/config", "src\\..\\.git\\config", ".INBOUNDS/policy.yaml", "x/.InBounds/config.yaml",
    ".GitHub/Workflows/x.yml", "CONFTEST.PY", ".\u1d9clAude/settings.json".replace("\u1d9c", "c"), "MakeFile", ".ENVRC",
)  # fmt: skip
SUSPECTS = (".git/", ".inbounds/", ".github/workflows/", "conftest.py", ".claude/", "Makefile", ".envrc")


def control(_: Any) -> dict[str, Any]:
    """A list of names, compared as they are."""
    return {"passed": [name for name in NAMES if not any(part in name for part in SUSPECTS)], "plain": []}


def attack(_: Any) -> dict[str, Any]:
    """The real judge, under the widest plan there can be."""
    declared = scope.Declared(targets=("**",))

    def rules(name: str) -> list[str]:
        return [f.rule for f in scope.judge([scope.Change("A", name, new_mode="100644")], declared).findings]

    return {"passed": [name for name in NAMES if not rules(name)], "plain": rules("src/gitignore.py")}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them passes for an ordinary file; one that is ordinary must."""
    said = after["said"]
    if said["plain"]:
        raise ValueError(f"an ordinary name has findings: {said['plain']}")
    words = f"{len(said['passed'])} of {len(NAMES)} pass for ordinary files: {said['passed'][:3]!a}"
    return ("ESCAPED" if said["passed"] else "DETECTED"), words
