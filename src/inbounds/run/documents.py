"""The contract files of one repository and thread, read and kept with their bytes, so that errors can name lines.

Reads the person's work tree: contracts are the person's own, agents never see a writable copy. Decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inbounds.contracts.documents import Config, LimitsText, Plan, Policy, Requirements
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import FILE_BYTES_MAX, Model, line_of, load
from inbounds.contracts.narrow import Layer
from inbounds.contracts.paths import CONTRACT_DIRECTORY, joined, relative

POLICY = f"{CONTRACT_DIRECTORY}/policy.yaml"
CONFIG = "config.yaml"
REQUIREMENTS = "requirements.yaml"
PLAN = "WORK_PLAN.json"


@dataclass(frozen=True, slots=True)
class Documents:
    """What a thread is bound by; `requirements` and `plan` are None where only flags will say them."""

    top: Path
    thread: str
    policy: Policy
    config: Config
    requirements: Requirements | None
    plan: Plan | None

    def path(self, name: str) -> str:
        """The repository-relative path of one of the thread's files."""
        return joined(self.thread, f"{CONTRACT_DIRECTORY}/{name}")

    def layer(self, shown: str, limits: LimitsText, prefix: str = "$.limits") -> Layer:
        """One step of narrowing, with the line of each key in its file."""
        return Layer(shown, limits, _lines(self.top / shown, limits, prefix))


def read(top: Path, thread: str) -> Documents:
    """Read what is there; a missing policy or config is the operator's to mend with `inbounds init`."""
    thread = relative(thread)
    directory = top / joined(thread, CONTRACT_DIRECTORY)
    _refuse_links(top, thread)
    fix = "inbounds init" if thread == "." else f"inbounds thread add {thread}"
    policy = load(top / POLICY, Policy, shown=POLICY, fix="inbounds init")
    config = load(directory / CONFIG, Config, shown=joined(thread, f"{CONTRACT_DIRECTORY}/{CONFIG}"), fix=fix)
    return Documents(
        top,
        thread,
        policy,
        config,
        _optional(directory / REQUIREMENTS, Requirements, joined(thread, f"{CONTRACT_DIRECTORY}/{REQUIREMENTS}")),
        _optional(directory / PLAN, Plan, joined(thread, f"{CONTRACT_DIRECTORY}/{PLAN}")),
    )


def threads(top: Path) -> tuple[str, ...]:
    """Every directory of the repository that has a thread's config, at most four levels down, sorted."""
    found: list[str] = []
    for depth in range(5):
        pattern = "/".join(["*"] * depth + [CONTRACT_DIRECTORY, CONFIG])
        for file in top.glob(pattern):
            parts = file.relative_to(top).parts[:-2]
            if not any(part.startswith(".") for part in parts):
                found.append("/".join(parts) or ".")
    return tuple(sorted(found))


def _optional(path: Path, model: type[Model], shown: str) -> Model | None:
    return load(path, model, shown=shown) if path.exists() else None


def _lines(path: Path, limits: LimitsText, prefix: str) -> Mapping[str, int]:
    try:
        raw = path.read_bytes()[: FILE_BYTES_MAX + 1]
    except OSError:
        return {}
    keys = [key for key in msgspec.structs.asdict(limits) if getattr(limits, key) is not None]
    return {key: line_of(raw, f"{prefix}.{key}") for key in keys}


def _refuse_links(top: Path, thread: str) -> None:
    for path in (top / CONTRACT_DIRECTORY, top / joined(thread, CONTRACT_DIRECTORY)):
        if path.is_symlink():
            raise OperatorError("is a symbolic link", where=str(path), expected="a directory of the repository itself")
