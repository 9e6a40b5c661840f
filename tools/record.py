"""The record of a test session: which test had which outcome and which marks, for which sources.

Written by tests/conftest.py, read by tools/requirements.py; standard library only. Knows nothing of pytest.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

# A record made from other sources proves nothing about these.
SOURCES = ("src", "tests", "tools", "pyproject.toml", "docs/requirements.json")


def place(root: Path) -> Path:
    """Where the record of the last sessions is."""
    return root / ".cache" / "requirements.json"


@cache
def catalogue(root: Path) -> dict[str, dict[str, str]]:
    """The requirements by id: {"id", "section", "text"}."""
    entries = json.loads((root / "docs" / "requirements.json").read_text(encoding="utf-8"))
    return {entry["id"]: entry for entry in entries}


def fingerprint(root: Path) -> str:
    """SHA-256 over names and contents of everything that a test's outcome depends on."""
    total = hashlib.sha256()
    for source in SOURCES:
        top = root / source
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" in file.parts:
                continue
            total.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


def read(root: Path) -> dict[str, Any]:
    """The last record, or an empty one; a broken file is as good as none."""
    try:
        found = json.loads(place(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"fingerprint": "", "whole": False, "tests": {}}
    return dict(found)


def write(root: Path, tests: dict[str, Any], made_from: str, *, whole: bool) -> None:
    """Add a session's tests to the record of the same sources; one of other sources is dropped."""
    before = read(root)
    if before.get("fingerprint") == made_from:
        whole = whole or bool(before.get("whole"))
        tests = {**before["tests"], **tests}
    data = {"fingerprint": made_from, "whole": whole, "tests": tests}
    place(root).parent.mkdir(exist_ok=True)
    part = place(root).with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(data, indent=1), encoding="utf-8")
    part.replace(place(root))
