"""A repository of another language: node's packages in the layer, node's own test runner in the tester's jail."""

import json
import shutil

import pytest
import shop_repository as shop
from person import Person, script, write

pytestmark = pytest.mark.slow

MODEL = "shop-model"
GOAL = "Waiting times are written in words"
ACCEPT = "test/waiting.test.js::waiting > is written in words"
SOLVED = """\
const ms = require("ms");

exports.waiting = (text) => ms(ms(text), { long: true });
"""
FILES = {
    "package.json": json.dumps(
        {"name": "fares", "version": "1.0.0", "private": True, "dependencies": {"ms": "2.1.3"},
         "scripts": {"test": "node --test"}}, indent=2,
    ),
    "package-lock.json": json.dumps(
        {
            "name": "fares", "version": "1.0.0", "lockfileVersion": 3, "requires": True,
            "packages": {
                "": {"name": "fares", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}},
                "node_modules/ms": {
                    "version": "2.1.3",
                    "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==",
                },
            },
        }, indent=2,
    ),
    ".gitignore": "node_modules/\n",
    "waiting.js": 'const ms = require("ms");\n\nexports.waiting = (text) => ms(ms(text));\n',
    "test/waiting.test.js": """\
const { describe, test } = require("node:test");
const assert = require("node:assert");
const { waiting } = require("../waiting.js");

describe("waiting", () => {
  test("is a text", () => assert.equal(typeof waiting("5m"), "string"));
  test("is written in words", () => assert.equal(waiting("5m"), "5 minutes"));
});
""",
    "test/other.test.js": """\
const test = require("node:test");
test("is written in words", () => { throw new Error("another test of that name"); });
""",
}  # fmt: skip


@pytest.fixture
def person(newcomer: Person) -> Person:
    for tool in ("node", "npm"):
        if not shutil.which(tool, path="/usr/local/bin:/usr/bin:/bin"):
            pytest.skip(f"{tool} is not installed where jails show it")
    shutil.rmtree(newcomer.repository)
    shop.make(newcomer.repository, FILES)
    return newcomer


def test_node_packages_and_tests(person: Person) -> None:
    person.provider(
        script({"calls": [write("/work/waiting.js", SOLVED)]}, {"calls": [{"name": "run_tests"}]}, {"text": "Done."}),
        "shop", formats=("openai-chat",), model=MODEL,
    )  # fmt: skip
    made = person.runs("init", "--json")
    assert made.returncode == 0, made.stdout + made.stderr
    facts = json.loads(made.stdout)
    assert facts["tests_problem"] == ""
    assert facts["failing"] == ["test/other.test.js::is written in words", ACCEPT]
    packages = {item["name"]: item for item in person.facts("env", "show", ".")["resolved"]}
    assert packages["ms"]["version"] == "2.1.3"
    assert packages["ms"]["digest"].startswith("sha512-")
    seen = person.runs("shell", ".", "--", "node", "-e", "console.log(require('ms')('2h'), require.resolve('ms'))")
    assert seen.stdout == "7200000 /work/node_modules/ms/index.js\n", seen.stderr
    changed = person.runs("shell", ".", "--", "sh", "-c", "echo evil > node_modules/ms/index.js")
    assert changed.returncode != 0

    flags = ("--goal", GOAL, "--accept", ACCEPT, "--agent", "reference", "--model", MODEL)
    assert person.runs("plan", "sign", ".", *flags, "--yes").returncode == 0
    done = person.runs("run", ".", *flags, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = person.last()
    changes = [change["path"] for change in person.data(run_id, "snapshot.taken")[-1]["changes"]]
    assert changes == ["waiting.js"]  # the mounted packages are no part of the tree
    assert [call["outcome"] for call in person.data(run_id, "tool.called")] == ["ok"]
