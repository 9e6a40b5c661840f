"""Maturity levels 0 to 3 (P0-P4): which one a set of mechanisms amounts to, what is missing for the next, what to type.

Pure: it is told what was measured. A level asks for all that the levels below it ask for. Knows no host and no run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from inbounds.sandbox.spec import ENFORCED, HARDENED, REQUIRED

LEVELS = {
    0: "prompt-only: nothing is enforced here, so every run is refused",
    1: "FR-driven, staging-only writes",
    2: "disk-restricted, gated performance verification, budget controls",
    3: "OS-policy, long-running autonomous programs",
}
LEVEL_MAX = max(LEVELS)
LEVEL_ROOTLESS_MAX = 2

# What each level asks for on top of the one below it. Two are policy's to ask for (`require`), never a level's:
# encryption at rest (F8) protects against who takes the disk away, not against an agent; disk traffic costs time and no
# bound of E7's, and version 1's blkio bounds direct writes only.
LEVEL_2 = ("landlock_files", "noexec", "memory_limit", "tmpfs_limit")
LEVEL_3 = tuple(name for name in HARDENED if name not in {"encryption", "cgroup_io"})
ASKED = {1: REQUIRED, 2: LEVEL_2, 3: LEVEL_3}

# Issue 4's own words: what keeps a rootless installation where it is, whatever the host.
HELD = "what rootless can't give (dedicated user, quota image, ACLs, files read) holds its level at 2"
INSTALL = "sudo inbounds host install --operator $USER"


@dataclass(frozen=True, slots=True)
class Reached:
    """level: 0 to 3. lacking: the mechanisms between it and the next one, in the order of the tables."""

    level: int
    lacking: tuple[str, ...]


def reached(enforcement: Mapping[str, str], most: int = LEVEL_MAX) -> Reached:
    """The level that these mechanisms support, `most` at most; one that was not observed is not in force."""
    level = 0
    for asked in range(1, most + 1):
        lacking = tuple(name for name in ASKED[asked] if enforcement.get(name) != ENFORCED)
        if lacking:
            return Reached(level, lacking)
        level = asked
    return Reached(level, tuple(name for name in ASKED.get(level + 1, ()) if enforcement.get(name) != ENFORCED))


@dataclass(frozen=True, slots=True)
class Step:
    """What stands between a host, a thread or a run and its next level: in words, and the one command ("" for none)."""

    missing: str
    command: str


def next_step(level: int, lacking: Mapping[str, str], *, fix: str = "", hardened_fix: str = "") -> Step:
    """From what is lacking (mechanism -> why); `fix` is what makes jails possible, `hardened_fix` the host service."""
    if level >= LEVEL_MAX:
        return Step("nothing: this is the highest", "")
    said = "; ".join(f"{name}: {why}" for name, why in lacking.items())
    if level == LEVEL_ROOTLESS_MAX:
        return Step(f"{HELD}{f' ({said})' if said else ''}", hardened_fix or INSTALL)
    return Step(said or "a jail cannot be made here", fix)


def thread_level(host: Mapping[str, int], mode: str) -> tuple[int, str]:
    """The level that a thread's runs get under its policy's `mode`, and "" or what holds it below the host's.

    `host` is the level of each mode here; auto takes hardened where there is any.
    """
    best = max(host.values(), default=0)
    if mode == "rootless":
        mine = host.get("rootless", 0)
        return mine, "policy says enforcement.mode: rootless" if mine < best else ""
    if mode == "hardened":
        return host.get("hardened", 0), ""
    return host.get("hardened", 0) or host.get("rootless", 0), ""
