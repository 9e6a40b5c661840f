"""Claude Code (npm @anthropic-ai/claude-code, or its native installer), headless. Speaks Anthropic messages.

Settings and flags as tried with 2.1.
"""

import json
from collections.abc import Sequence
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

PACKAGE = "@anthropic-ai/claude-code"
# What the gateway answers at a limit; Claude Code gives up on both without a retry.
LIMIT_STATUSES = {402, 403}
# A test suite is the slowest tool that it is given.
TOOL_MS_MAX = 900_000
# It takes this many tokens of a reply for thinking at most, so that some are left for the answer.
THINKING_SHARE = 2


class Claude:
    """Claude Code."""

    name = "claude"
    format = "anthropic-messages"

    def find(self, search_path: Sequence[Path]) -> Install | None:
        """Find the native program behind the command; a package without one can't be used."""
        for command in npm.commands("claude", search_path):
            package = npm.package_of(command, PACKAGE)
            program = _native(command, package)
            if program is not None:
                version = npm.version_of(program, package)
                return Install(self.name, version, str(program), self.digest(program), self.format)
        return None

    def digest(self, program: Path) -> str:
        """Hash the native program."""
        return npm.sha256(program)

    def launch(self, install: Install, task: AgentTask) -> AgentLaunch:
        """Start it once on the prompt, with the broker as its only MCP server and nothing else to talk to."""
        program = f"{task.programs}/claude"
        mcp_file = f"{task.home}/.inbounds-mcp.json"
        argv = (
            program,
            "-p",
            "--model",
            task.model,
            "--max-turns",
            str(task.turns_max),
            "--output-format",
            "json",
            "--dangerously-skip-permissions",
            "--mcp-config",
            mcp_file,
            "--strict-mcp-config",
            "--setting-sources",
            "user",
            "--disallowedTools",
            "WebFetch,WebSearch",
            "--",
            task.prompt,
        )
        server = {
            "type": "http",
            "url": f"{task.broker_url}/mcp",
            "headers": {"Authorization": f"Bearer {task.token}"},
        }
        files = {".inbounds-mcp.json": json.dumps({"mcpServers": {MCP_NAME: server}}).encode()}
        return AgentLaunch(
            argv=argv,
            env=environment(task) | _settings(task),
            files=files,
            binds=((install.path, program),),
            executables=(program,),
        )

    def read(self, stdout: bytes, stderr: bytes, exit_code: int) -> AgentOutcome:
        """Read the one result object; without it the agent did not come to an end of its own."""
        result = _result(stdout)
        if result is None:
            words = stderr[-2000:].decode("utf-8", "replace").strip()
            return AgentOutcome(False, "", detail=f"no result (exit code {exit_code}): {words}")
        said = shortened(str(result.get("result", "")))
        status = result.get("api_error_status")
        if result.get("is_error") or result.get("subtype") != "success":
            why = f"{result.get('subtype')}, status {status}: {said[:500]}"
            return AgentOutcome(False, said, refused=status in LIMIT_STATUSES, detail=why)
        return AgentOutcome(True, said)

    def problem(self, home: Path, *, has_key: bool) -> str:
        """A login with a subscription has no key that a gateway could hold and meter."""
        if has_key:
            return ""
        try:
            held = json.loads((home / ".claude" / ".credentials.json").read_bytes())
            login = isinstance(held, dict) and bool(held.get("claudeAiOauth"))
        except (OSError, ValueError):
            login = False
        if login:
            return (
                "Claude Code is logged in with a subscription here, and no API key is stored: inbounds meters keys only"
            )
        return "no API key is stored for Anthropic"


def _native(command: Path, package: Path | None) -> Path | None:
    if npm.is_native(command):
        return command
    if package is None:
        return None
    # Where install scripts are off, bin/claude.exe stays a stub and the program is in the platform's own package.
    named = f"{PACKAGE}-linux-{npm.architecture()}"
    places = [place / "claude" for place in npm.beside(package, named)]
    return next((place.resolve() for place in places if npm.is_native(place)), None)


def _settings(task: AgentTask) -> dict[str, str]:
    # Sub-agents, titles and summaries must use the run's model, too: another one may have no price.
    models = dict.fromkeys(
        (
            "ANTHROPIC_SMALL_FAST_MODEL",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL",
            "ANTHROPIC_DEFAULT_SONNET_MODEL",
            "ANTHROPIC_DEFAULT_OPUS_MODEL",
            "CLAUDE_CODE_SUBAGENT_MODEL",
        ),
        task.model,
    )
    return models | {
        "ANTHROPIC_BASE_URL": task.gateway_url,
        "ANTHROPIC_API_KEY": task.token,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "IS_SANDBOX": "1",  # it refuses to start as root otherwise, and a user namespace looks like root
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task.output_tokens_max),
        "MAX_THINKING_TOKENS": str(task.output_tokens_max // THINKING_SHARE),
        "MCP_TIMEOUT": "30000",
        "MCP_TOOL_TIMEOUT": str(TOOL_MS_MAX),
    }


def _result(stdout: bytes) -> dict[str, object] | None:
    for line in reversed(stdout[-OUTPUT_BYTES_MAX:].splitlines()):
        try:
            made = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(made, dict) and made.get("type") == "result":
            return made
    return None


PROFILE = Claude()
