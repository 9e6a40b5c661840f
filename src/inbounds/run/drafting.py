"""Requirement and plan of a run's flags as the files a thread keeps: deterministic bytes, for a person to edit.

Writes only where nothing stands yet. What the words mean is contracts'.
"""

import json
from pathlib import Path

import msgspec

from inbounds.contracts import documents as models
from inbounds.contracts.errors import OperatorError
from inbounds.run import bind, documents
from inbounds.run.base import find_base, place
from inbounds.run.home import Home
from inbounds.run.order import Order, needs_accept
from inbounds.run.setup import write_new

HEAD = "# inbounds: what is asked of agents in this thread. Acceptance tests belong to people.\n"


def draft_files(home: Home, asked: Order) -> dict[str, str]:
    """Repository-relative path -> text of requirements.yaml and WORK_PLAN.json, as the flags draft them."""
    import yaml

    top, thread = place(asked.directory)
    found = documents.read(top, thread)
    if not asked.wish.goal:
        raise OperatorError("nothing to draft from", expected="--goal and --accept", fix="inbounds plan show")
    needs_accept(home, top, found, asked.wish)
    work = bind.choose_work(found, asked.wish, find_base(top, found, home), found.config.owner)
    bind.check_work(found, work)
    asks = msgspec.to_builtins(models.Requirements(version=1, requirements=work.requirements))
    plan = msgspec.to_builtins(work.plan)
    return {
        found.path(documents.REQUIREMENTS): HEAD + yaml.safe_dump(asks, sort_keys=False, allow_unicode=True, width=100),
        found.path(documents.PLAN): json.dumps(plan, indent=2, ensure_ascii=False) + "\n",
    }


def write_files(directory: Path, files: dict[str, str]) -> list[str]:
    """Keep them in the repository; OperatorError, and nothing written, where one is there already."""
    top, _ = place(directory)
    for path in files:
        if (top / path).exists():
            raise OperatorError(
                "is there already", where=path, expected="a thread without a plan", fix=f"git rm {path}, or edit it"
            )
    return [path for path, text in files.items() if write_new(top, path, text)]
