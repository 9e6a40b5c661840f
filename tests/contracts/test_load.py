"""A contract file is read once: a frozen model, or an error with file, line, found, expected and what to type."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts.documents import Config, Plan, Policy, Requirements
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import DEPTH_MAX, FILE_BYTES_MAX, line_of, load, parse

POLICY = b"""version: 1
# who may sign
operators:
  - name: ana
    key: ssh-ed25519 AAAA ana
  - name: bo
    key: ssh-ed25519 BBBB bo
limits:
  iterations: 5
  budget_usd: "0.25"
notify:
  desktop: false
"""


def refused(raw: bytes, model: type = Policy) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        parse(raw, model, shown="policy.yaml")
    fault = caught.value
    assert fault.where.startswith("policy.yaml")
    assert fault.expected, "an error says what was expected"
    assert "\n" not in fault.one_line()
    return fault


def test_a_good_file_is_a_frozen_model() -> None:
    policy = parse(POLICY, Policy, shown="policy.yaml")
    assert policy.operators[1].name == "bo"
    assert policy.limits.budget_usd == "0.25"
    with pytest.raises(AttributeError):
        policy.version = 2  # type: ignore[misc,assignment] # that it is frozen is what is tested


def test_yaml_and_json_say_the_same() -> None:
    raw = b'{"version": 1, "operators": [], "limits": {"iterations": 5}}'
    assert parse(raw, Policy, shown="x") == parse(
        b"version: 1\noperators: []\nlimits: {iterations: 5}", Policy, shown="x"
    )


@pytest.mark.req("B14")
@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("  iterations: 5", "  iteratons: 5", 9, "unknown field `iteratons`"),
        ("notify:", "notfy:", 11, "unknown field `notfy`"),
        ("notify:", "a.b[0]:", 11, "unknown field `a.b[0]`"),
        ("  - name: bo\n", "  - name: bo\n    kay: x\n", 7, "unknown field `kay`"),
        ("    key: ssh-ed25519 BBBB bo\n", "", 6, "missing required field `key`"),
        ("  iterations: 5", "  iterations: five", 9, "Expected `int | null`, got `str`"),
        ('budget_usd: "0.25"', "budget_usd: 0.25", 10, "got `float`"),
        ("version: 1", "version: 2", 1, "Invalid enum value 2"),
        ("desktop: false", "desktop: nope", 12, "Expected `bool`"),
        ("notify:\n  desktop: false", "notify: 3", 11, "Expected `object`"),
        ("operators:", "operators: &all", 3, "anchor"),
        ("desktop: false", "desktop: *x", 12, "alias"),
        ("desktop: false", "desktop: !!python/object:os.system x", 12, "tag"),
        ("desktop: false", "desktop: false\nlimits: {}", 13, "the key 'limits' stands twice"),
        ("  iterations: 5", "  <<: {iterations: 9}\n  iterations: 5", 9, "no plain text"),
        ("  iterations: 5", "  ? [a]\n  : 1", 9, "no plain text"),
        ("  iterations: 5", "  5: 5", 9, "no plain text"),
        ("  iterations: 5", "  iterations: [", 11, "not valid YAML"),
        ("  iterations: 5", "\titerations: 5", 9, "not valid YAML"),
        ("desktop: false", "desktop: false\n---\nversion: 1", 13, "another document"),
    ],
)
def test_a_mistake_is_shown_with_its_line(old: str, new: str, line: int, says: str) -> None:
    text = POLICY.decode()
    assert text.count(old) == 1
    fault = refused(text.replace(old, new).encode())
    assert says in fault.found
    assert fault.where == f"policy.yaml:{line}"


def test_an_unknown_key_names_the_one_that_was_meant() -> None:
    fault = refused(POLICY.replace(b"iterations", b"iteratons"))
    assert fault.fix == "iterations: … instead of iteratons: …"
    assert "no_progress" in fault.expected
    assert "wall_clock" not in refused(POLICY.replace(b"notify:", b"zzz:")).expected


def test_a_float_is_told_how_to_write_it() -> None:
    assert '"0.25"' in refused(POLICY.replace(b'"0.25"', b"0.25")).expected


def test_a_line_can_be_asked_for() -> None:
    assert line_of(POLICY, "$.limits.budget_usd") == 10
    assert line_of(POLICY, "$.operators[1].name") == 6
    assert line_of(POLICY, "$.limits.nothing") == 9


@pytest.mark.parametrize("raw", [b"", b"# only a remark\n", b"\n\n"])
def test_an_empty_file_is_said_to_be_empty(raw: bytes) -> None:
    assert "empty" in refused(raw).found


@pytest.mark.parametrize(
    ("raw", "line"), [(b"\xff\xfe", 1), (b"version: 1\nname: caf\xe9\n", 2), (b"version: 1\n\n\xc3\x28", 3)]
)
def test_what_is_not_utf8_is_shown_with_its_line(raw: bytes, line: int) -> None:
    fault = refused(raw)
    assert fault.found == "not UTF-8"
    assert fault.where == f"policy.yaml:{line}"


@pytest.mark.parametrize("raw", [b"version: \x00", b'{"version": "\\ud800"}', b"a: \x1b[2J", b"\xef\xbf\xbe"])
def test_control_characters_and_half_characters_are_refused(raw: bytes) -> None:
    refused(raw)


def test_dates_are_text_and_impossible_ones_no_crash() -> None:
    raw = POLICY.replace(b"name: ana", b"name: 2024-13-45")
    assert parse(raw, Policy, shown="x").operators[0].name == "2024-13-45"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 500, 100_000])
@pytest.mark.parametrize("opening", [b"[", b"{a: ", b"- "])
def test_deep_nesting_is_refused_before_the_parser_can_overflow(depth: int, opening: bytes) -> None:
    raw = (opening * depth)[: FILE_BYTES_MAX - 10]
    # In a process of its own: libyaml's composer would take the whole test run down with it.
    program = "import sys; from inbounds.contracts.load import *; from inbounds.contracts.documents import Policy\n"
    program += "try: parse(sys.stdin.buffer.read(), Policy, shown='f')\n"
    program += "except OperatorError as e: print(e.found); sys.exit(100)"
    done = subprocess.run([sys.executable, "-c", program], input=raw, capture_output=True, timeout=60, check=False)
    assert done.returncode == 100, done
    assert b"nested deeper" in done.stdout


def test_a_yaml_bomb_is_refused_at_its_first_anchor() -> None:
    raw = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (97 + n, 97 + n, b",".join([b"*%c" % (96 + n)] * 9)) for n in range(1, 9)
    )
    begin = time.monotonic()
    assert "anchor" in refused(raw).found
    assert time.monotonic() - begin < 1


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    begin = time.monotonic()
    with pytest.raises(OperatorError, match="larger than"):
        load(path, Policy)
    assert time.monotonic() - begin < 2


def test_a_missing_or_unreadable_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        load(tmp_path / "policy.yaml", Policy, shown=".inbounds/policy.yaml")
    assert (caught.value.where, caught.value.fix) == (".inbounds/policy.yaml", "inbounds init")
    with pytest.raises(OperatorError, match="cannot be read"):
        load(tmp_path, Policy)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_model_or_an_operators_error(raw: bytes) -> None:
    for model in (Policy, Config, Requirements, Plan):
        with suppress(OperatorError):
            assert isinstance(parse(raw, model, shown="f"), model)


@given(st.text(alphabet="[]{}:,-? \n\"'|>&*!%@`#a1.~<=\t", max_size=120))
def test_any_yaml_shaped_text_gives_a_model_or_an_operators_error(text: str) -> None:
    with suppress(OperatorError):
        assert isinstance(parse(text.encode(), Policy, shown="f"), Policy)
