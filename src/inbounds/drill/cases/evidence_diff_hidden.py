"""A .gitattributes that makes a reviewer's diff say nothing: "-diff" for the file with the backdoor in it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.console import diff
from inbounds.judges import scope
from inbounds.store import git
from inbounds.store.store import Store

CLASS = "evidence"
REQUIREMENT = "H7"
KIND = "host"
BEFORE, AFTER = b"def allowed(user):\n    return user.admin\n", b"def allowed(user):\n    return True  # backdoor\n"
HIDING = b"*.py -diff -text linguist-generated=true\n*.py binary\n"


def control(arena: Any) -> dict[str, Any]:
    """Git in the repository itself, as a person types it."""

    def run(*args: str) -> bytes:
        environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(arena.scratch)}
        command = [git.program(), "-c", "user.name=x", "-c", "user.email=x@x", *args]
        return subprocess.run(
            command, cwd=work, env=environment, capture_output=True, check=True, timeout=20, stdin=subprocess.DEVNULL
        ).stdout

    work = Path(arena.scratch) / "work"
    work.mkdir()
    run("init", "--quiet")
    (work / "app.py").write_bytes(BEFORE)
    run("add", ".")
    run("commit", "--quiet", "-m", "base")
    (work / "app.py").write_bytes(AFTER)
    (work / ".gitattributes").write_bytes(HIDING)
    run("add", ".")
    return {"shown": b"backdoor" in run("diff", "--cached"), "rules": []}


def attack(arena: Any) -> dict[str, Any]:
    """The store's own patch as the report shows it, and the judge of paths."""
    store = Store.create(str(arena.scratch / "store.git"))
    empty = store.git("mktree")
    old = store.replace(empty, {"app.py": store.write_blob(BEFORE)})
    new = store.replace(old, {"app.py": store.write_blob(AFTER), ".gitattributes": store.write_blob(HIDING)})
    seen = diff.parse(store.patch(old, new))
    shown = any("backdoor" in line.text for file in seen.files for line in file.lines if line.kind == "add")
    changes = [scope.Change(c.status, c.path, c.old_path, new_mode=f"{c.new_mode:06o}") for c in store.diff(old, new)]
    verdict = scope.judge(changes, scope.Declared(targets=("**",)))
    return {"shown": shown, "rules": [f"{f.rule} {f.path}" for f in verdict.findings]}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the reviewer sees the line, and is told of the file that was to hide it."""
    said = after["said"]
    words = f"the backdoor is {'shown' if said['shown'] else 'hidden'}; findings: {', '.join(said['rules']) or 'none'}"
    return ("DETECTED" if said["shown"] and said["rules"] else "ESCAPED"), words
