"""Codex (npm @openai/codex), headless. Speaks OpenAI responses only.

Settings and flags as tried with 0.169.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from inbounds.agents import npm
from inbounds.agents.profile import (
    MCP_NAME,
    OUTPUT_BYTES_MAX,
    AgentLaunch,
    AgentOutcome,
    AgentTask,
    Install,
    environment,
    shortened,
)

PACKAGE = "@openai/codex"
TRIPLES = {"x64": "x86_64-unknown-linux-musl", "arm64": "aarch64-unknown-linux-musl"}
# Programs of the package that it starts by itself: newer models' tool calls run in the second one.
PROGRAMS = ("bin/codex", "bin/codex-code-mode-host", "codex-path/rg")
# Stands at the root of the package's layout.
LAYOUT = "codex-package.json"
TOKEN_VARIABLE = "INBOUNDS_TOKEN"  # noqa: S105 - the name of a variable, not a secret
LIMIT_WORDS = ("402", "403")
TOOL_SECONDS_MAX = 900

# Features that contact somebody else or make a request unreadable to the gateway. In the file and
# not as flags: a flag that some version does not know is an error, an unknown key is not.
OFF = ("plugins", "apps", "remote_plugin", "enable_request_compression")


class Codex:
    """Codex CLI."""

    name = "codex"
    format = "openai-responses"

    def find(self, search_path: Sequence[Path]) -> Install | None:
        """Find the native program behind the command's node shim."""
        for command in npm.commands("codex", search_path):
            package = npm.package_of(command, PACKAGE)
            program = _native(command, package)
            if program is not None:
                version = npm.version_of(program, package)
                return Install(self.name, version, str(program), self.digest(program), self.format)
        return None

    def digest(self, program: Path) -> str:
        """Hash codex and the programs beside it."""
        return npm.sha256(*_programs(program))

    def launch(self, install: Install, task: AgentTask) -> AgentLaunch:
        """Start it once on the prompt; everything it would ask or fetch is switched off."""
        program = Path(install.path)
        place = f"{task.programs}/codex"
        root = _root(program)
        # File by file: the package has programs that no run needs, a sandbox of its own and a voice host among them.
        binds = {str(one): f"{place}/{one.relative_to(root) if root else PROGRAMS[0]}" for one in _programs(program)}
        layout = ((str(root / LAYOUT), f"{place}/{LAYOUT}"),) if root else ()
        argv = (
            f"{place}/{PROGRAMS[0]}",
            "exec",
            "--dangerously-bypass-approvals-and-sandbox",
            "--skip-git-repo-check",
            "--ephemeral",
            "--json",
            "--",
            task.prompt,
        )
        env = environment(task) | {"CODEX_HOME": f"{task.home}/.codex", TOKEN_VARIABLE: task.token}
        return AgentLaunch(
            argv=argv,
            env=env,
            files={".codex/config.toml": _config(task).encode()},
            binds=(*binds.items(), *layout),
            executables=tuple(binds.values()),
        )

    def read(self, stdout: bytes, stderr: bytes, exit_code: int) -> AgentOutcome:
        """Read the events: the last message, and whether the turn completed."""
        said, fault, completed = "", "", False
        for event in _events(stdout):
            item = event.get("item")
            match event.get("type"):
                case "item.completed" if isinstance(item, dict) and item.get("type") == "agent_message":
                    said = shortened(str(item.get("text", "")))
                case "turn.completed":
                    completed = True
                case "turn.failed":
                    completed, why = False, event.get("error")
                    fault = str(why.get("message", "")) if isinstance(why, dict) else str(why)
                case "error":
                    fault = str(event.get("message", ""))
                case _:
                    pass
        if completed:
            return AgentOutcome(True, said)
        words = fault or stderr[-2000:].decode("utf-8", "replace").strip()
        refused = any(f"status {status}" in words for status in LIMIT_WORDS)
        return AgentOutcome(False, said, refused=refused, detail=f"exit code {exit_code}: {words[:2000]}")

    def problem(self, home: Path, *, has_key: bool) -> str:
        """A login with a ChatGPT plan has no key that a gateway could hold and meter."""
        if has_key:
            return ""
        try:
            held = json.loads((home / ".codex" / "auth.json").read_bytes())
            login = isinstance(held, dict) and bool(held.get("tokens"))
        except (OSError, ValueError):
            login = False
        if login:
            return "Codex is logged in with a ChatGPT plan here, and no API key is stored: inbounds meters keys only"
        return "no API key is stored for OpenAI"


def _native(command: Path, package: Path | None) -> Path | None:
    if npm.is_native(command):
        return command
    if package is None:
        return None
    triple = TRIPLES.get(npm.architecture(), "")
    places = [*npm.beside(package, f"{PACKAGE}-linux-{npm.architecture()}"), package]
    found = [place / "vendor" / triple / PROGRAMS[0] for place in places]
    return next((program.resolve() for program in found if npm.is_native(program)), None)


def _root(program: Path) -> Path | None:
    """Give the directory that its package is laid out in, None for a program that was put somewhere alone."""
    root = program.parents[1]
    return root if (root / LAYOUT).is_file() else None


def _programs(program: Path) -> list[Path]:
    root = _root(program)
    return [root / one for one in PROGRAMS if (root / one).is_file()] if root else [program]


def _config(task: AgentTask) -> str:
    quoted = {
        "model": _toml(task.model),
        "gateway": _toml(f"{task.gateway_url}/v1"),
        "broker": _toml(f"{task.broker_url}/mcp"),
        "workspace": _toml(task.workspace),
    }
    features = "\n".join(f"{feature} = false" for feature in OFF)
    return f"""\
model = {quoted["model"]}
model_provider = "gateway"
approval_policy = "never"
sandbox_mode = "danger-full-access"
web_search = "disabled"
check_for_update_on_startup = false

[features]
{features}

[history]
persistence = "none"

[analytics]
enabled = false

[model_providers.gateway]
name = "gateway"
base_url = {quoted["gateway"]}
env_key = "{TOKEN_VARIABLE}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 2

[mcp_servers.{MCP_NAME}]
url = {quoted["broker"]}
bearer_token_env_var = "{TOKEN_VARIABLE}"
default_tools_approval_mode = "approve"
startup_timeout_sec = 30
tool_timeout_sec = {TOOL_SECONDS_MAX}

[projects.{quoted["workspace"]}]
trust_level = "untrusted"
"""


def _toml(text: str) -> str:
    """Write a TOML basic string: JSON's escapes are a subset of TOML's, except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _events(stdout: bytes) -> Iterator[dict[str, object]]:
    for line in stdout[-OUTPUT_BYTES_MAX:].splitlines():
        try:
            made = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(made, dict):
            yield made


PROFILE = Codex()
