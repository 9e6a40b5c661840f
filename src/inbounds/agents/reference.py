"""The reference agent's profile: a program of inbounds' own for the demo, tests and as the example to copy.

Speaks OpenAI chat completions. Needs a Python in the jail and nothing else.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from inbounds.agents import npm, reference_agent
from inbounds.agents.profile import (
    OUTPUT_BYTES_MAX,
    AgentLaunch,
    AgentOutcome,
    AgentTask,
    Install,
    environment,
    shortened,
)

# It changes with this file only, and the hash says so, too.
VERSION = "1.0.0"
SYSTEM_PYTHON = "/usr/bin/python3"
TASK_FILE = ".inbounds/task.json"


class Reference:
    """The reference agent."""

    name = "reference"
    format = "openai-chat"

    def find(self, search_path: Sequence[Path]) -> Install | None:
        """It is always there: it comes with inbounds."""
        del search_path
        program = Path(reference_agent.__file__).resolve()
        return Install(self.name, VERSION, str(program), self.digest(program), self.format)

    def digest(self, program: Path) -> str:
        """Hash its one file."""
        return npm.sha256(program)

    def launch(self, install: Install, task: AgentTask) -> AgentLaunch:
        """Start it with the system's Python, which every jail shows, or with a copy of the one that runs inbounds."""
        program = f"{task.programs}/reference_agent.py"
        binds = [(install.path, program)]
        python = SYSTEM_PYTHON
        if not Path(python).exists():
            # The interpreter looks for its library beside itself, so its own place is where it must stand.
            python = str(Path(sys.executable).resolve())
            binds.append((sys.base_prefix, sys.base_prefix))
        told = {
            "prompt": task.prompt,
            "model": task.model,
            "workspace": task.workspace,
            "gateway_url": task.gateway_url,
            "broker_url": task.broker_url,
            "turns_max": task.turns_max,
            "output_tokens_max": task.output_tokens_max,
        }
        return AgentLaunch(
            argv=(python, "-I", "-S", program, f"{task.home}/{TASK_FILE}"),
            env=environment(task) | {"INBOUNDS_TOKEN": task.token},
            files={TASK_FILE: json.dumps(told).encode()},
            binds=tuple(binds),
            executables=(python,),
        )

    def read(self, stdout: bytes, stderr: bytes, exit_code: int) -> AgentOutcome:
        """Read the last result line."""
        for line in reversed(stdout[-OUTPUT_BYTES_MAX:].splitlines()):
            try:
                made = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(made, dict) and made.get("type") == "result":
                said, detail = shortened(str(made.get("said", ""))), str(made.get("detail", ""))[:2000]
                return AgentOutcome(made.get("ok") is True, said, made.get("refused") is True, detail)
        words = stderr[-2000:].decode("utf-8", "replace").strip()
        return AgentOutcome(False, "", detail=f"no result (exit code {exit_code}): {words}")

    def problem(self, home: Path, *, has_key: bool) -> str:
        """Need a key for whatever provider speaks its format."""
        del home
        return "" if has_key else "no API key is stored for a provider of OpenAI chat completions"


PROFILE = Reference()
