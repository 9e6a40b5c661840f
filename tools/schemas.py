"""Writes the JSON Schemas of what people write (B14) from the models; --check says whether they are current.

They lie in the package, so that the wheel ships them: src/inbounds/contracts/schemas/.
"""

import json
import sys
from pathlib import Path

import msgspec

from inbounds.contracts.documents import Config, Plan, Policy, Requirements

PLACE = Path(__file__).resolve().parents[1] / "src" / "inbounds" / "contracts" / "schemas"
FILES: dict[type[msgspec.Struct], str] = {
    Policy: ".inbounds/policy.yaml of a repository",
    Config: ".inbounds/config.yaml of a thread",
    Requirements: ".inbounds/requirements.yaml of a thread",
    Plan: ".inbounds/WORK_PLAN.json of a thread",
}


def name(model: type[msgspec.Struct]) -> str:
    """The file's name."""
    return f"{model.__name__.lower()}.schema.json"


def schema(model: type[msgspec.Struct]) -> str:
    """One schema as it stands in its file; nothing in it depends on time or place."""
    found = msgspec.json.schema(model)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:inbounds:schema:1:{model.__name__.lower()}",
        "$comment": f"{FILES[model]}; written by tools/schemas.py, do not edit by hand",
    }
    return json.dumps({**head, **found}, indent=2, ensure_ascii=False) + "\n"


def stale() -> list[Path]:
    """Files that are missing, differ, or belong to no model."""
    wanted = {PLACE / name(model): schema(model) for model in FILES}
    other = [path for path in sorted(PLACE.glob("*")) if path not in wanted]
    return other + [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PLACE.mkdir(exist_ok=True)
        for model in FILES:
            (PLACE / name(model)).write_text(schema(model), encoding="utf-8")
    elif stale():
        sys.exit(f"{', '.join(path.name for path in stale())} not current; type: .venv/bin/python tools/schemas.py")
