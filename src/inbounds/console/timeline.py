"""A run's journal as a timeline: days, iterations, stops and legs, bursts folded into one line, and what it all cost.

Records go in one by one and lines come out; what is held is bounded, so that a journal of any length streams. Made from
the journal alone; a prompt's text is read through a function and shown only with its hash checked. Draws nothing.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inbounds.console.plain import visible
from inbounds.console.sentences import EVIDENCE, REFUSED, Data, count, money, sentence, whole
from inbounds.contracts.units import show_duration
from inbounds.journal.chain import Record

FOLD_MIN = 3  # like records that become one line; two are read as quickly as their sum
FOLDS_MAX = 200  # different bursts held at once; one more and all of them are written
NAMES_KEPT_MAX = 1_000  # distinct details counted within a burst of denials
NAMES_SHOWN = 3
PROMPT_LINES_MAX = 2_000  # of a prompt with everything shown; the goal's first line otherwise
DAY_MS = 86_400_000
# Records after which the workspace can be rebuilt (`inbounds logs --at`).
STATES_TREE = frozenset({"snapshot.taken", "snapshot.kept", "commit.made"})
JUDGE_JAILS = frozenset({"jail.started", "jail.exited"})
CODER = "coder"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `shape` is event, heading, total or detail; `since_ms` counts from the journal's first record.

    `seq` and `kind` name the first record behind it ("" for none), `text` is printable and one line.
    """

    shape: str
    at_ms: int
    since_ms: int
    word: str
    text: str
    seq: int = -1
    kind: str = ""


@dataclass(slots=True)
class Totals:
    """Running sums: micro-dollars as the gateway's ledger states them, tokens, and how often what happened."""

    spent: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    requests: int = 0
    refused: int = 0
    iterations: int = 0

    def take(self, kind: str, data: Data) -> None:
        """Count one record."""
        if kind == "model.usage":
            self.spent = max(self.spent, whole(data, "spent_micro_usd"))
            self.tokens_in += whole(data, "input_tokens")
            self.tokens_out += whole(data, "output_tokens")
            self.cached += whole(data, "cache_read_tokens") + whole(data, "cache_write_tokens")
            self.requests += 1
        elif kind in ("denial", "model.refused"):
            self.refused += 1
        elif kind == "iteration.started":
            self.iterations += 1

    def less(self, before: "Totals") -> "Totals":
        """What came since `before`."""
        names = self.__slots__
        return Totals(**{name: getattr(self, name) - getattr(before, name) for name in names})

    def copy(self) -> "Totals":
        """As it is now."""
        return self.less(Totals())

    def words(self, limit: object = None) -> str:
        """Money first, and of how much where that is known; then what it bought."""
        cached = f", {self.cached:,} cached" if self.cached else ""
        tokens = f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{cached}"
        refused = f", {self.refused:,} refused" if self.refused else ""
        of = f" of {money(limit)}" if type(limit) is int else ""
        return f"{money(self.spent)}{of}, {count(self.requests, 'request')}, {tokens}{refused}"


@dataclass(slots=True)
class _Burst:
    """Like records that followed each other; the first few are kept whole in case they stay few."""

    first: Record
    last: Record
    hold: int
    records: list[Record] = field(default_factory=list)
    n: int = 0
    ms: int = 0
    totals: Totals = field(default_factory=Totals)
    cost: int = 0
    sizes: list[int] = field(default_factory=lambda: [0, 0])
    names: dict[str, None] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        data = record.data
        self.last = record
        self.n += 1
        if len(self.records) <= self.hold:
            self.records.append(record)
        if record.kind != "jail.started":
            self.ms += whole(data, "ms")
        if record.kind == "model.usage":
            self.totals.take(record.kind, data)
            self.cost += whole(data, "cost_micro_usd")
        elif record.kind == "denial" and len(self.names) < NAMES_KEPT_MAX:
            self.names[str(data.get("detail"))[:100]] = None
        elif record.kind == "external.call":
            self.sizes[0] += whole(data, "bytes_out")
            self.sizes[1] += whole(data, "bytes_in")


def _key(kind: str, data: Data) -> tuple[object, ...] | None:
    """What makes records alike; None for a kind that always has a line of its own."""
    match kind:
        case "model.usage":
            return kind, str(data.get("model")), str(data.get("state", "settled"))
        case "model.refused":
            return kind, str(data.get("reason")), str(data.get("model"))
        case "denial":
            return kind, str(data.get("kind") or data.get("what")), data.get("sensitive") is True
        case "tool.called":
            return kind, str(data.get("tool")), str(data.get("outcome"))
        case "jail.started" | "jail.exited" if data.get("role") != CODER:
            return "jail", str(data.get("role"))
        case "external.call":
            return kind, str(data.get("purpose")), str(data.get("host"))
        case _:
            return None


class Timeline:
    """Turns records into lines; `feed` each, `pause` when no more are there for now, `end` after the last.

    `read` gives the bytes of a file in the run's `logs/` by its name, None if it is not there. `faults` collects what
    the files do not confirm.
    """

    def __init__(self, *, verbose: bool = False, read: Callable[[str], bytes | None] | None = None) -> None:
        """`verbose`: no folding, whole prompts, every signed checkpoint."""
        self.verbose, self.faults = verbose, list[str]()
        self.totals = Totals()
        self._read = read
        self._bursts: dict[tuple[object, ...], _Burst] = {}
        self._start = self._at = -1
        self._day = -1
        self._budget: object = None
        self._section, self._since, self._before = "", 0, Totals()
        self._legs, self._checkpoints, self._signed = 1, 0, 0
        self._code = ""

    def feed(self, record: Record) -> Iterator[Line]:
        """The lines that this record completes."""
        if self._start < 0:
            self._start = record.at_ms
        self._at = record.at_ms
        kind, data = record.kind, record.data
        if kind == "journal.checkpoint" and not self.verbose:
            self._checkpoints, self._signed = self._checkpoints + 1, whole(data, "size")
            return
        key = None if self.verbose else _key(kind, data)
        if key is None:
            yield from self.pause()
            yield from self._heading(record)
            self._note(kind, data)
            self.totals.take(kind, data)
            yield from self._event(record)
            return
        self.totals.take(kind, data)
        burst = self._bursts.get(key)
        if burst is None:
            if len(self._bursts) >= FOLDS_MAX:
                yield from self.pause()
            hold = FOLD_MIN * 2 - 1 if kind in JUDGE_JAILS else FOLD_MIN - 1  # a jail has two records, start and end
            burst = self._bursts[key] = _Burst(record, record, hold)
        burst.take(record)

    def pause(self) -> Iterator[Line]:
        """Everything that was held back; called when a reader waits for the next record."""
        if not self._bursts:
            return
        found: list[tuple[int, Record, str]] = []
        for burst in self._bursts.values():
            if burst.n > burst.hold:
                found.append((burst.first.seq, burst.first, _folded(burst)))
            else:
                found += [(record.seq, record, "") for record in burst.records]
        self._bursts.clear()
        for _, record, text in sorted(found, key=lambda item: item[0]):
            yield from self._event(record, text)

    def end(self) -> Iterator[Line]:
        """What is left, and the sum of it all."""
        yield from self.pause()
        yield from self._close()
        if self._start < 0:
            return
        over = f"over: {visible(self._code)}" if self._code else "not over"
        took = show_duration(self._at - self._start)
        text = f"{over}, {took}, {count(self.totals.iterations, 'iteration')}, {self.totals.words(self._budget)}"
        yield self._line("heading", self._at, "", text)

    # -- parts of a timeline

    def _heading(self, record: Record) -> Iterator[Line]:
        kind, data, section = record.kind, record.data, ""
        match kind:
            case "iteration.started":
                section = f"iteration {visible(str(data.get('n')), limit=20)}"
            case "run.reauthorized":
                self._legs += 1
                section = f"leg {self._legs}: the run was re-authorized"
                self._code = ""
            case "run.recovered":
                section = "taken up after its supervisor died"
            case "stop.decided" | "stop.step" if not self._section.startswith("stop"):
                section = "stop"
            case _ if self._code and self._section.startswith("stop"):
                section = "after the run"
        if not section:
            return
        yield from self._close()
        self._section, self._since, self._before = section, record.at_ms, self.totals.copy()
        yield from self._date(record.at_ms)
        yield self._line("heading", record.at_ms, "", section)

    def _close(self) -> Iterator[Line]:
        """What the part of the run that ends here cost."""
        if self._section.startswith("iteration"):
            took = show_duration(self._at - self._since)
            part, limit = self.totals.less(self._before), ""
            if type(self._budget) is int:
                limit = f" of {money(self._budget)}"
            text = f"{self._section}: {took}, {part.words()}; run so far {money(self.totals.spent)}{limit}"
            yield self._line("total", self._at, "", text)
        if self._checkpoints:
            signed = (
                f"{count(self._checkpoints, 'checkpoint')} signed, the last over the first {self._signed:,} records"
            )
            yield self._line("event", self._at, EVIDENCE, signed)
        self._section, self._checkpoints = "", 0

    def _note(self, kind: str, data: Data) -> None:
        limits = data.get("limits")
        if kind == "run.accepted":
            self._budget = data.get("budget_micro_usd")
        elif kind == "contract.amended" and isinstance(limits, dict):
            self._budget = limits.get("budget_micro_usd", self._budget)
        elif kind == "run.finished":
            self._code = str(data.get("code") or "?")

    def _event(self, record: Record, text: str = "") -> Iterator[Line]:
        kind, data = record.kind, record.data
        word, said = sentence(kind, data)
        if kind == "tool.called" and data.get("outcome") == "refused":
            word = REFUSED
        said = visible(text) if text else said
        if kind in STATES_TREE:
            said += f" (--at {record.seq})"
        yield from self._date(record.at_ms)
        yield self._line("event", record.at_ms, word, said, record)
        if kind == "iteration.started" and self._read is not None:
            yield from self._prompt(record, self._read)

    def _prompt(self, record: Record, read: Callable[[str], bytes | None]) -> Iterator[Line]:
        stated, name = record.data.get("prompt_sha256"), str(record.data.get("prompt_file"))
        if not isinstance(stated, str):
            return
        content = read(name)
        if content is None:
            text = f"logs/{visible(name, limit=60)} cannot be read: what was asked is known by its hash alone"
            yield self._line("event", record.at_ms, EVIDENCE, text, record)
            return
        if hashlib.sha256(content).hexdigest() != stated:
            text = f"logs/{visible(name, limit=60)} is NOT what was asked: its hash is another one"
            self.faults.append(text)
            yield self._line("event", record.at_ms, EVIDENCE, text, record)
            return
        lines = content.decode("utf-8", "replace").splitlines()
        for line in lines[: PROMPT_LINES_MAX if self.verbose else 1]:
            yield self._line("detail", record.at_ms, "", visible(line), record)

    def _date(self, at_ms: int) -> Iterator[Line]:
        if at_ms // DAY_MS != self._day:
            self._day = at_ms // DAY_MS
            yield self._line("day", at_ms, "", "")

    def _line(self, shape: str, at_ms: int, word: str, text: str, record: Record | None = None) -> Line:
        seq, kind = (record.seq, record.kind) if record else (-1, "")
        return Line(shape, at_ms, max(0, at_ms - self._start), word, text, seq, kind)


def _folded(burst: _Burst) -> str:
    """One sentence for a burst, with its sums and how long it went on."""
    data: dict[str, Any] = burst.first.data
    took = show_duration(max(0, burst.last.at_ms - burst.first.at_ms))
    n = f"{burst.n:,}"
    match burst.first.kind:
        case "model.usage":
            sums, run = burst.totals, money(burst.totals.spent)
            tokens = f"{sums.tokens_in:,} tokens in, {sums.tokens_out:,} out"
            state = data.get("state")
            why = f" [{state}]" if state not in (None, "settled") else ""
            return f"{n} requests to {data.get('model')} in {took}: {tokens}, {money(burst.cost)} (run: {run}){why}"
        case "model.refused":
            return f"{n} model requests in {took}: {data.get('reason')}, {data.get('model')}"
        case "denial":
            names = list(burst.names)
            more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
            what = ("SENSITIVE: " if data.get("sensitive") is True else "") + f"{data.get('kind') or data.get('what')}"
            return f"{what}, {n} times in {took}: {', '.join(names[:NAMES_SHOWN])}{more}"
        case "tool.called":
            spent = show_duration(burst.ms)
            return f"the agent calls {data.get('tool')} {n} times in {took}: {data.get('outcome')}, {spent} of work"
        case "external.call":
            out, back = burst.sizes
            return f"{n} calls in {took}: {data.get('purpose')} at {data.get('host')}, {out:,} bytes out, {back:,} in"
        case _:
            times = f"{burst.n // 2:,} times in {took}, {show_duration(burst.ms)} of work"
            return f"{data.get('role')} runs in a jail {times}"
