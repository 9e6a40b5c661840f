"""Code that is read otherwise than it is executed: bidirectional controls in a comment (CVE-2021-42574), an invisible
letter in a name.
"""

from collections.abc import Mapping
from typing import Any

from inbounds.judges.anomalies import judge as anomalies
from inbounds.judges.anomalies.material import Changed, Material

CLASS = "evidence"
REQUIREMENT = "H16"
KIND = "host"
# what is seen: access != "none" with a remark behind it; what is compared: "none" and the remark in one string
TROJAN = 'access = "none"\ngranted = access != "none\u202e \u2066# nobody may\u2069 \u2066"\n'
INVISIBLE = "secure = True\nsecu\u115fre = False\n"
PLAIN = 'access = "none"\ngranted = access != "none"  # nobody may\n'


class _Base:
    """A repository with nothing in it."""

    paths: tuple[str, ...] = ()

    def read(self, _: str) -> bytes | None:
        """No such file."""
        return None


def _judged(text: str) -> list[str]:
    raw = text.encode()
    change = Changed("A", "src/app.py", new_mode="100644", new=raw, new_size=len(raw))
    return [f.rule for f in anomalies.judge(Material([change], _Base())).findings if f.severity.value != "note"]


def control(_: Any) -> dict[str, Any]:
    """The interpreter takes it, and does what is not seen."""
    names: dict[str, Any] = {}
    exec(TROJAN, names)
    return {"found": {} if names["granted"] else {"trojan": ["it did nothing"]}, "plain": []}


def attack(_: Any) -> dict[str, Any]:
    """The real judge of what is new in a tree."""
    found = {name: _judged(text) for name, text in (("trojan", TROJAN), ("invisible", INVISIBLE))}
    return {"found": {name: rules for name, rules in found.items() if rules}, "plain": _judged(PLAIN)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether both were found, and the plain text not."""
    said = after["said"]
    if said["plain"]:
        raise ValueError(f"plain text has findings: {said['plain']}")
    words = "; ".join(f"{name}: {', '.join(rules)}" for name, rules in said["found"].items()) or "nothing found"
    return ("DETECTED" if {"trojan", "invisible"} <= set(said["found"]) else "ESCAPED"), words
