"""The timeline: every kind has its sentence, bursts are one line, sums are right, and nothing in it can be forged."""

import ast
import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evidence
import pytest

from inbounds.console import sentences, timeline
from inbounds.console.terminal import cells, date, timeline_line
from inbounds.console.timeline import Line, Timeline
from inbounds.journal.chain import Record
from inbounds.kernel.events import BY_KIND

SRC = Path(__file__).resolve().parents[2] / "src" / "inbounds"
# How the product writes records: the loop's and the journal's own methods, and what is handed on as `post`.
WRITERS = frozenset({"post", "_post", "say", "_say", "tell", "record", "append", "_append", "_put", "_take", "hear"})
KIND = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*|denial|verdict")


def parsed() -> list[ast.Module]:
    found = [path for path in SRC.rglob("*.py") if "example" not in path.parts]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in found]


def constants(trees: list[ast.Module]) -> dict[str, str]:
    """Every name that stands for one kind: NAME = "a.b" in a module, and Class.KIND of an event."""
    named: dict[str, str] = {}
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            split = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = value.elts if split and isinstance(value, ast.Tuple) else [value]
            for name, constant in zip(names, values, strict=False):
                if isinstance(name, ast.Name) and isinstance(constant, ast.Constant) and kind_in(constant.value):
                    named[name.id] = str(constant.value)
    named.pop("KIND", None)
    named.update({f"{event.__name__}.KIND": kind for kind, event in BY_KIND.items()})
    return named


def kind_in(value: object) -> bool:
    return isinstance(value, str) and KIND.fullmatch(value) is not None


def written() -> set[str]:
    """The kinds that some call of the product's source writes, or that it hands on as (kind, {data})."""
    trees = parsed()
    named = constants(trees)
    kinds = set(BY_KIND)

    def meant(node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value) if kind_in(node.value) else ""
        parts = ast.unparse(node).split(".") if isinstance(node, (ast.Name, ast.Attribute)) else [""]
        return named.get(".".join(parts[-2:]), named.get(parts[-1], ""))

    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[1], ast.Dict):
            kinds.add(meant(node.elts[0]))
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in WRITERS:
                kinds |= {meant(argument) for argument in [*node.args, *(k.value for k in node.keywords)]}
    return kinds - {""}


def lines(records: list[Record], **options: Any) -> list[Line]:
    made = Timeline(**options)
    return [*itertools.chain.from_iterable(map(made.feed, records)), *made.end()]


def chained(steps: list[tuple[str, dict[str, Any]]], every_ms: int = 1_000) -> list[Record]:
    return [Record(n, evidence.START + n * every_ms, kind, data, "", "") for n, (kind, data) in enumerate(steps)]


@pytest.fixture
def good(tmp_path: Path) -> list[Record]:
    return list(evidence.read(evidence.write(tmp_path, evidence.good_run())))


@pytest.mark.req("H15")
def test_every_kind_that_the_product_writes_has_a_sentence() -> None:
    kinds = written()
    known = {"run.accepted", "jail.exited", "verdict", "denial", "commit.made", "operator.decision", "model.usage"}
    assert known <= kinds, "the control: the walk finds what is certainly written"
    assert {"journal.opened", "stop.step", "part.failed", "work.discarded"} <= kinds
    assert kinds - set(sentences.SENTENCES) == set(), "give each a category and a sentence in console/sentences.py"


@pytest.mark.parametrize("kind", [*sentences.SENTENCES, "something.new"])
def test_a_sentence_is_one_bounded_line_whatever_a_record_holds(kind: str) -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\r\n\u202eevil" + "x" * 10_000
    keys = set(re.findall(r"\"([a-z_]{1,30})\"", Path(str(sentences.__file__)).read_text(encoding="utf-8")))
    for value in (hostile, 7, -1, 2**53, None, True, [hostile], [{"path": hostile, "rule": [1]}], {"a": hostile}, []):
        word, text = sentences.sentence(kind, dict.fromkeys(keys, value))
        assert word in sentences.WORDS
        assert text.isprintable()
        assert len(text) < sentences.TEXT_CHARS_MAX + 100, "escapes are longer than what they stand for"
    assert sentences.sentence(kind, {})[1]


@pytest.mark.parametrize("kind", [*sentences.SENTENCES, "something.new"])
def test_a_timeline_takes_any_record(kind: str) -> None:
    values: tuple[Any, ...] = ("x", 7, -1, 2**53, None, [], {}, [{}], {"budget_micro_usd": "x"})
    for value in values:
        keys = ("n", "spent_micro_usd", "ms", "limits", "code", "size", "role", "model", "detail", "budget_micro_usd")
        records = [Record(n, 2**53 - 9 + n, kind, dict.fromkeys(keys, value), "", "") for n in range(9)]
        for line in lines(records):
            assert timeline_line(line, width=80, color=True).replace("\n", "").replace("\x1b", "").isprintable()


@pytest.mark.req("H15")
def test_a_run_reads_as_a_story(good: list[Record]) -> None:
    text = [timeline_line(line) for line in lines(good)]
    assert text[0] == "2026-11-20 UTC"
    assert any(line.startswith("23:15:07    +0:07  asked     Dana Oduya asks claude 2.1.40") for line in text)
    headings = [line.strip() for line in text if line.startswith("\n")]
    assert headings[:4] == ["── iteration 1", "── iteration 2", "── iteration 3", "── stop"]
    assert headings[4].startswith("── over: DONE, 6m4s, 3 iterations, $0.246 of $5.00, 6 requests, 55,227 tokens in")
    assert any("said      (the agent's own words, untrusted) Iteration 1" in line for line in text)
    assert any("= iteration 2: 1m24s, $0.082, 2 requests, 18,409 tokens in, 820 out" in line for line in text)
    assert any("run so far $0.164 of $5.00" in line for line in text)
    seen = {line.word for line in lines(good)} - {""}
    assert seen == set(sentences.WORDS)


def test_a_burst_is_one_line_with_its_sums_and_every_record_has_its_own_where_asked() -> None:
    burst = [("model.usage", evidence.usage(1_000 * n, n)) for n in range(1, 101)]
    records = chained([("iteration.started", {"n": 1}), *burst, ("jail.exited", {"role": "coder", "ms": 5})])
    spent = [line for line in lines(records) if line.word == "spent"]
    tokens = sum(record.data["input_tokens"] for record in records if record.kind == "model.usage")
    assert [line.text for line in spent] == [
        f"100 requests to claude-sonnet-4-5 in 1m39s: {tokens:,} tokens in, 41,000 out, $4.10 (run: $0.10)"
    ]
    assert [line.seq for line in spent] == [1]
    every = [line for line in lines(records, verbose=True) if line.word == "spent"]
    assert [line.seq for line in every] == list(range(1, 101))
    few = chained([*burst[:2], ("jail.exited", {"role": "coder"})])
    assert len([line for line in lines(few) if line.word == "spent"]) == 2


def test_bursts_that_alternate_are_folded_each_and_stand_in_the_order_of_their_first() -> None:
    names: list[Any] = [
        ("denial", {"kind": "name", "detail": f"host{n}.example", "sensitive": False}) for n in range(10)
    ]
    called: list[Any] = [("tool.called", {"tool": "run_tests", "outcome": "ok", "ms": 1_000})] * 10
    jails: list[Any] = [("jail.started", {"role": "tester"}), ("jail.exited", {"role": "tester", "ms": 900})] * 10
    pairs = zip(names, called, zip(jails[::2], jails[1::2], strict=True), strict=True)
    steps: list[tuple[str, dict[str, Any]]] = [step for a, b, (c, d) in pairs for step in (a, c, d, b)]
    text = [line.text for line in lines(chained([*steps, ("verdict", {"judge": "tests"})])) if line.shape == "event"]
    assert text[0] == "name, 10 times in 36s: host0.example, host1.example, host2.example and 7 more"
    assert text[1] == "tester runs in a jail 10 times in 37s, 9s of work"
    assert text[2] == "the agent calls run_tests 10 times in 36s: ok, 10s of work"
    assert text[3].startswith("judge tests")
    assert len(text) == 4


def test_what_is_sensitive_is_not_folded_into_what_is_not() -> None:
    plain = ("denial", {"kind": "decoy", "detail": "~/.netrc", "sensitive": False})
    grave = ("denial", {"kind": "decoy", "detail": "~/.aws/credentials was opened", "sensitive": True})
    text = [line.text for line in lines(chained([plain, plain, grave, plain, plain]))]
    assert "SENSITIVE: a decoy: ~/.aws/credentials was opened" in text


def test_what_is_held_back_is_bounded_and_nothing_is_lost() -> None:
    def many() -> Iterator[tuple[str, dict[str, Any]]]:
        for n in range(5_000):
            yield "model.refused", {"reason": f"r{n}", "model": "m"}

    made = Timeline()
    found = []
    for record in chained(list(many())):
        found += list(made.feed(record))
        assert len(made._bursts) <= timeline.FOLDS_MAX
    found += list(made.end())
    assert len([line for line in found if line.word == "refused"]) == 5_000


def test_a_new_day_is_said_and_a_time_beyond_every_calendar_is_no_error() -> None:
    records = chained([("verdict", {"judge": "a"})] * 3, every_ms=timeline.DAY_MS)
    days = [timeline_line(line) for line in lines(records) if line.shape == "day"]
    assert days == ["2026-11-20 UTC", "2026-11-21 UTC", "2026-11-22 UTC"]
    assert date(2**53).startswith("day ")
    assert "+48:00:00" in [timeline_line(line) for line in lines(records)][-2]


def test_a_leg_after_a_reauthorization_has_its_heading_and_its_own_end() -> None:
    first, second = evidence.stop("STOP_BUDGET_EXCEEDED", "cap", "revert"), evidence.stop("DONE", "passes", "keep")
    steps = [
        ("run.accepted", evidence.accepted()),
        *first,
        ("run.finished", {"code": "STOP_BUDGET_EXCEEDED", "exit": 1}),
        ("run.reauthorized", {"stop_hash": "ab" * 32, "operators": ["Dana Oduya", "Kim"]}),
        ("contract.amended", {"version": 2, "operator": "Dana Oduya", "limits": {"budget_micro_usd": 9_000_000}}),
        ("run.recovered", {"spent_micro_usd": 100_000, "tokens": 1, "tool_calls": 0}),
        ("iteration.started", {"n": 2}),
        *second,
        ("run.finished", {"code": "DONE", "exit": 0}),
        ("operator.decision", {"kind": "approve", "operator": "Kim", "statement": {"note": "fine"}}),
    ]
    found = lines(chained(steps))
    headings = [line.text for line in found if line.shape == "heading"]
    assert headings[:6] == [
        "stop",
        "leg 2: the run was re-authorized",
        "taken up after its supervisor died",
        "iteration 2",
        "stop",
        "after the run",
    ]
    assert headings[6].startswith("over: DONE")
    assert "of $9.00" in headings[6]
    assert any(line.text == "Dana Oduya, Kim let the run go on after the stop abababababab" for line in found)


def test_checkpoints_are_counted_and_shown_where_asked() -> None:
    signed = [("journal.checkpoint", {"size": n, "root": "x", "note": "y"}) for n in range(5)]
    records = chained([("run.accepted", {}), *signed, ("run.finished", {"code": "DONE"})])
    text = [line.text for line in lines(records)]
    assert "5 checkpoints signed, the last over the first 4 records" in text
    assert len([line for line in lines(records, verbose=True) if line.kind == "journal.checkpoint"]) == 5


PROMPT = b"Round half up\n\nAcceptance tests that must pass\n\x1b[2J"


@pytest.mark.req("H15")
def test_what_was_asked_is_shown_where_its_hash_says_so() -> None:
    stated = hashlib.sha256(PROMPT).hexdigest()
    records = chained([("iteration.started", {"n": 1, "prompt_sha256": stated, "prompt_file": "prompt-1.txt"})])
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        return PROMPT

    details = [line.text for line in lines(records, read=read) if line.shape == "detail"]
    assert details == ["Round half up"]
    assert asked == ["prompt-1.txt"]
    details = [line.text for line in lines(records, read=read, verbose=True) if line.shape == "detail"]
    assert details[-1] == "\\x1b[2J"
    forged = Timeline(read=lambda _: PROMPT + b" and more")
    found = [*forged.feed(records[0]), *forged.end()]
    assert not [line for line in found if line.shape == "detail"], "a text that is not what was asked is not shown"
    assert len(forged.faults) == 1
    gone = Timeline(read=lambda _: None)
    assert any("cannot be read" in line.text for line in gone.feed(records[0]))


@pytest.mark.parametrize("width", [40, 80, 133])
def test_lines_fit_their_terminal_and_hang_below_their_sentence(good: list[Record], width: int) -> None:
    hard = chained([("verdict", {"judge": "x" * 300, "summary": "漢字" * 40 + " e\u0301" * 40})])
    for line in [*lines(good), *lines(hard)]:
        rows = timeline_line(line, width=width).strip("\n").split("\n")
        assert all(cells(row) <= max(width, 51) for row in rows), rows
        if line.shape == "event":
            assert all(row.startswith(" " * 29) for row in rows[1:])
    whole = timeline_line(lines(hard)[1])
    wrapped = timeline_line(lines(hard)[1], width=width)
    assert "".join(whole.split()) == "".join(wrapped.split()), "nothing is lost between the rows"


def test_colour_is_there_where_asked_and_nowhere_else(good: list[Record]) -> None:
    assert not any("\x1b" in timeline_line(line, width=80) for line in lines(good))
    assert any("\x1b[36masked" in timeline_line(line, width=80, color=True) for line in lines(good))
