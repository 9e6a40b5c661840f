"""The published JSON Schemas are current, and an independent validator says of each example what `load` says."""

import copy
import json
from importlib.resources import files
from typing import Any

import jsonschema
import msgspec
import pytest

from inbounds.contracts.documents import Config, Plan, Policy, Requirements
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import SCHEMAS, parse

GOOD: dict[type[msgspec.Struct], dict[str, Any]] = {
    Policy: {
        "version": 1,
        "operators": [{"name": "ana", "key": "ssh-ed25519 AAAA ana"}],
        "limits": {"iterations": 5, "budget_usd": "0.25", "wall_clock": "30m", "memory": 1_000_000},
        "profile": "strict",
        "enforcement": {"level": 2, "require": ["landlock"]},
        "notify": {"desktop": False, "webhook": None},
        "protected": ["infra/"],
    },
    Config: {
        "version": 1,
        "owner": "ana",
        "agents": ["reference"],
        "tests": {"runner": "pytest", "paths": ["billing/tests"], "timeout": "10m"},
        "interfaces": {"read": ["shared"]},
        "dependencies": ["requirements.txt"],
    },
    Requirements: {
        "version": 1,
        "requirements": [
            {
                "id": "FR-7",
                "owner": "ana",
                "objective": "Tax is rounded half up",
                "acceptance": [{"criterion": "half up", "test": "t.py::test_x", "sha256": "a" * 64}],
                "cost_ceiling_usd": 5,
            }
        ],
    },
    Plan: {
        "version": 1,
        "plan_id": "PLAN-7",
        "requirements": [{"id": "FR-7", "sha256": "b" * 64}],
        "targets": ["billing/tax.py"],
        "expected_changes": ["rounding"],
        "risk": "low",
        "coverage_min_percent": 80,
        "branch": "agent/tax",
    },
}

# (model, path to set, value): each breaks one rule. A value of `...` removes the key.
BAD: list[tuple[type[msgspec.Struct], tuple[Any, ...], Any]] = [
    (Policy, ("version",), 2),
    (Policy, ("version",), ...),
    (Policy, ("operators",), ...),
    (Policy, ("operators", 0, "key"), ...),
    (Policy, ("operators", 0, "name"), ""),
    (Policy, ("limits", "iteratons"), 5),
    (Policy, ("limits", "iterations"), "5"),
    (Policy, ("limits", "iterations"), True),
    (Policy, ("limits", "budget_usd"), 0.25),
    (Policy, ("enforcement", "level"), 0),
    (Policy, ("enforcement", "level"), 4),
    (Policy, ("profile",), "lax"),
    (Policy, ("notify", "webhook"), 7),
    (Policy, ("notify", "desktop"), "yes"),
    (Policy, ("protected",), "infra/"),
    (Policy, ("more",), {}),
    (Config, ("owner",), ...),
    (Config, ("owner",), "x" * 201),
    (Config, ("tests", "runner"), "make"),
    (Config, ("tests", "timeout"), None),
    (Config, ("interfaces", "write"), []),
    (Config, ("agents",), [1]),
    (Requirements, ("requirements", 0, "id"), "7"),
    (Requirements, ("requirements", 0, "acceptance"), ...),
    (Requirements, ("requirements", 0, "acceptance", 0, "sha256"), "A" * 64),
    (Requirements, ("requirements", 0, "objective"), None),
    (Requirements, ("requirements", 0, "priority"), 1),
    (Plan, ("plan_id",), "FR-7"),
    (Plan, ("plan_id",), "PLAN-../x"),
    (Plan, ("risk",), "none"),
    (Plan, ("branch",), "main"),
    (Plan, ("branch",), "agent/"),
    (Plan, ("promote_to",), "main"),
    (Plan, ("coverage_min_percent",), 101),
    (Plan, ("coverage_min_percent",), -1),
    (Plan, ("targets",), ...),
    (Plan, ("targets", 0), "x" * 1_025),
    (Plan, ("requirements", 0), "FR-7"),
]


def shipped(model: type[msgspec.Struct]) -> dict[str, Any]:
    place = files("inbounds").joinpath(SCHEMAS.removeprefix("inbounds/"), f"{model.__name__.lower()}.schema.json")
    return json.loads(place.read_text(encoding="utf-8"))


def changed(model: type[msgspec.Struct], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD[model])
    inner: Any = document
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


def test_the_shipped_schemas_are_what_the_models_say() -> None:
    import schemas

    assert schemas.stale() == [], "type: .venv/bin/python tools/schemas.py"


@pytest.mark.parametrize("model", GOOD, ids=lambda model: model.__name__)
def test_they_are_valid_schemas_and_accept_what_load_accepts(model: type[msgspec.Struct]) -> None:
    schema = shipped(model)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(GOOD[model], schema)
    parse(json.dumps(GOOD[model]).encode(), model, shown="f")
    needed = {key: GOOD[model][key] for key in schema["$defs"][model.__name__]["required"]}
    jsonschema.validate(needed, schema)
    parse(json.dumps(needed).encode(), model, shown="f")


@pytest.mark.req("B14")
@pytest.mark.parametrize(("model", "path", "value"), BAD, ids=lambda part: getattr(part, "__name__", str(part))[:40])
def test_they_refuse_what_load_refuses(model: type[msgspec.Struct], path: tuple[Any, ...], value: Any) -> None:
    document = changed(model, path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, shipped(model))
    with pytest.raises(OperatorError) as caught:
        parse(json.dumps(document, indent=1).encode(), model, shown="f")
    assert caught.value.where.startswith("f:")
    assert caught.value.expected
