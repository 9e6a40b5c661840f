"""A policy with a slip in it: a misspelt key, a key twice, an alias, no version, a float for money, nothing at all. Read
leniently, the limit that was meant is not there.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from inbounds.contracts.documents import Policy
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import parse

CLASS = "failopen"
REQUIREMENT = "B14"
KIND = "host"
GOOD = """version: 1
operators:
  - name: ana
    key: ssh-ed25519 AAAA ana
limits:
  budget_usd: "0.25"
"""
SLIPS = {
    "a misspelt limit": GOOD.replace("budget_usd", "bugdet_usd"),
    "a misspelt section": GOOD.replace("limits:", "limit:"),
    "a section of next year": GOOD + "sandbox:\n  network: none\n",
    "a key twice": GOOD + 'limits:\n  budget_usd: "9000"\n',
    "an alias": GOOD.replace('"0.25"', "*budget").replace("name: ana", "name: &budget '9000'"),
    "a merged mapping": GOOD.replace("limits:\n", "limits:\n  <<: {iterations: 9000}\n"),
    "another version": GOOD.replace("version: 1", "version: 2"),
    "no version": GOOD.replace("version: 1\n", ""),
    "a float for money": GOOD.replace('"0.25"', "0.25"),
    "a text for a number": GOOD + "  iterations: many\n",
    "two documents": GOOD + "---\n" + GOOD,
    "nothing": "",
    "a remark": "# version: 1\n",
    "a list": "- version: 1\n",
    "bytes that are no text": GOOD.replace("ana", "an\x00"),
    "a deep nest": "[" * 1_000,
}


def _lenient(text: str) -> bool:
    """Whether a program starts that reads what it knows and takes defaults for the rest."""
    try:
        found = yaml.safe_load(text) or {}
        str((found if isinstance(found, dict) else {}).get("limits", {}))
    except (yaml.YAMLError, RecursionError, AttributeError):
        return False
    return True


def _strict(text: str) -> bool:
    try:
        parse(text.encode(), Policy, shown="policy.yaml")
    except OperatorError:
        return False
    return True


def control(_: Any) -> dict[str, Any]:
    """As most programs read YAML."""
    return {"read": [name for name, text in SLIPS.items() if _lenient(text)], "good": _lenient(GOOD)}


def attack(_: Any) -> dict[str, Any]:
    """The real reader."""
    return {"read": [name for name, text in SLIPS.items() if _strict(text)], "good": _strict(GOOD)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them was taken for a policy; the good one must be."""
    said = after["said"]
    if not said["good"]:
        raise ValueError("the policy without a slip is refused")
    words = f"read as a policy: {', '.join(said['read']) or 'none'} of {len(SLIPS)}"
    return ("ESCAPED" if said["read"] else "BLOCKED"), words
