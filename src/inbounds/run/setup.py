"""Writing the contract files from what a look at host and repository finds; nothing that can be found is asked for.

Files that are there already are left alone. Knows how the files look; what they mean is contracts'.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.limits import DEFAULT
from inbounds.contracts.paths import CONTRACT_DIRECTORY, below, joined
from inbounds.contracts.units import show_duration, show_usd
from inbounds.discover import owners, repository
from inbounds.discover import tests as test_commands
from inbounds.journal import sshsig
from inbounds.judges.scope import shown
from inbounds.run.documents import CONFIG, POLICY


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found, with where it was found, so that a person can check it."""

    top: Path
    thread: str
    owner: str
    owner_from: str
    runner: str
    command: tuple[str, ...]
    paths: tuple[str, ...]
    pythonpath: tuple[str, ...]
    tests_from: str
    manifests: tuple[str, ...]
    operator: str
    operator_key: str
    operator_key_from: str


def survey(directory: Path, manifests: Sequence[str] = ()) -> Survey:
    """Look at the repository around `directory`; OperatorError where there is no repository or nobody to own it."""
    top = Path(repository.top_of(directory))
    thread = directory.resolve().relative_to(top).as_posix() or "."
    key = sshsig.operator_key()
    found = test_commands.find(top, "" if thread == "." else thread)
    usable = next((command for command in found if command.runner), None)
    owned = owners.owners_of(top, "" if thread == "." else thread)
    return Survey(
        top=top,
        thread=thread,
        owner=owned.owners[0] if owned.owners else key.principal,
        owner_from=owned.source if owned.owners else "your signing key",
        runner=usable.runner if usable else "pytest",
        command=usable.command if usable else ("python", "-m", "pytest"),
        paths=usable.paths if usable else (),
        pythonpath=usable.pythonpath if usable else (),
        tests_from=usable.source if usable else "nothing found",
        manifests=tuple(path for path in manifests if below(path, thread) or thread == "." or "/" not in path),
        operator=key.principal,
        operator_key=key.public,
        operator_key_from=key.source,
    )


def write_policy(found: Survey) -> str | None:
    """Write `.inbounds/policy.yaml` if it is not there; its repository-relative path, or None."""
    return write_new(found.top, POLICY, POLICY_TEXT.format(
        name=_quoted(found.operator), key=_quoted(found.operator_key), budget=show_usd(DEFAULT.budget_micro_usd),
        wall_clock=show_duration(DEFAULT.wall_clock_ms),
    ))  # fmt: skip


def write_config(found: Survey, known_failing: Sequence[str], tested: str) -> str | None:
    """Write the thread's config.yaml if it is not there; `tested` says how the failing tests were found."""
    # sources go into comments: a file's name with a line break in it would be more than a comment
    text = CONFIG_TEXT.format(
        owner=_quoted(found.owner),
        owner_from=shown(found.owner_from),
        tests_from=shown(found.tests_from),
        runner=found.runner,
        command=_flow(found.command),
        paths=_flow(found.paths),
        pythonpath=_flow(found.pythonpath),
        tested=shown(tested),
        known_failing=_block(known_failing),
        manifests=_flow(found.manifests),
    )
    return write_new(found.top, joined(found.thread, f"{CONTRACT_DIRECTORY}/{CONFIG}"), text)


def write_thread(directory: Path) -> dict[str, Any]:
    """`inbounds thread add`: a config for a directory of a repository that has a policy already."""
    found = survey(directory)
    if not (found.top / POLICY).exists():
        raise OperatorError("this repository has no policy yet", where=POLICY, fix="inbounds init")
    written = write_config(found, (), "not run yet; inbounds init fills this in")
    return {"thread": found.thread, "owner": found.owner, "written": [written] if written else []}


def write_new(top: Path, path: str, text: str) -> str | None:
    """Write a file of the repository unless it is there; its path, or None. Links are refused, never followed."""
    target = top / path
    if target.is_symlink() or target.parent.is_symlink():
        raise OperatorError("is a symbolic link", where=path, expected="a file of the repository itself")
    if target.exists():
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OperatorError(f"cannot be written: {error.strerror}", where=path) from error
    return path


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _flow(items: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(item) for item in items) + "]"


def _block(items: Sequence[str]) -> str:
    return "\n" + "\n".join(f"    - {_quoted(item)}" for item in items) if items else " []"


POLICY_TEXT = """\
# inbounds: what any run in this repository gets at most. Threads, plans and flags can only tighten it.
# Agents cannot change this file: it is read-only in their jail, and a tree that changes it is refused.
version: 1

operators:  # who may sign plans and approvals
  - name: {name}
    key: {key}

limits:  # everything else has a default: inbounds check shows all of them and where each comes from
  budget_usd: "{budget}"
  wall_clock: {wall_clock}

promotion:
  development: manual  # auto: the gate moves development by itself after DONE
"""
CONFIG_TEXT = """\
# inbounds: this directory's thread. Paths and test ids are relative to the repository.
version: 1

owner: {owner}  # found in {owner_from}

tests:  # found in {tests_from}
  runner: {runner}
  command: {command}
  paths: {paths}
  pythonpath: {pythonpath}
  # Tests that fail today and may go on failing; {tested}.
  known_failing:{known_failing}

dependencies: {manifests}  # the dependency layer is built from these at the base commit

interfaces:
  read: []  # what else of the repository this thread's agents may read
"""
