"""Iterations that repeat themselves, and bursts of denials, from the journal's records (H20).

Takes records as plain (kind, at_ms, data); a record that is not of the expected form is passed over, since the kernel
refuses such before. Knows no tree but by its id.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inbounds.judges.anomalies.material import Signal

JUDGE = "anomalies"
SAME_CALL_MAX = 20  # one and the same call within one iteration: a test is run again a few times, not this often
DENIALS_KEPT_MAX = 10_000  # as the highest limit of denials (contracts/limits.py)
Record = tuple[str, int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Round:
    """One iteration before the present one, or the present one: its tree, and its tool calls by hash.

    `more` counts calls without a hash: too many or too long for one reply, or never whole.
    """

    n: int
    tree: str = ""
    calls: tuple[str, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """What the journal says so far: rounds by number, lines that earlier iterations changed, when denials were.

    `counted` is False where the records carry no hashes of tool calls: the rule on them then says nothing.
    """

    rounds: tuple[Round, ...] = ()
    earlier_lines: int = 0
    denials: tuple[tuple[int, str], ...] = ()
    counted: bool = False

    @property
    def compared(self) -> str:
        """Whether tool calls were compared, in words."""
        if not self.counted:
            return "not compared: no hashes on record"
        more = sum(one.more for one in self.rounds)
        return f"compared; {more} call(s) have no hash" if more else "compared"


def read(records: Iterable[Record], n: int) -> History:
    """The history up to iteration `n`, `n` included as far as it is recorded."""
    trees: dict[int, str] = {}
    calls: dict[int, list[str]] = {}
    more: Counter[int] = Counter()
    lines: dict[int, int] = {}
    denials: deque[tuple[int, str]] = deque(maxlen=DENIALS_KEPT_MAX)
    now, counted = 0, False
    for kind, at_ms, data in records:
        if kind == "iteration.started":
            now = _whole(data.get("n"))
        elif kind == "snapshot.taken":
            trees[_whole(data.get("n"))] = str(data.get("tree", ""))
        elif kind == "model.usage" and isinstance(data.get("tool_hashes"), (list, tuple)):
            counted = True
            calls.setdefault(now, []).extend(str(item) for item in data["tool_hashes"])
            more[now] += _whole(data.get("tool_hashes_more"))
        elif kind == "verdict" and data.get("judge") == JUDGE and isinstance(data.get("facts"), Mapping):
            lines[_whole(data.get("n"))] = _whole(data["facts"].get("step_lines"))
        elif kind == "denial" or (kind == "model.refused" and not data.get("cap")):
            denials.append((at_ms, str(data.get("what") or data.get("reason") or "")))
    rounds = tuple(
        Round(i, trees.get(i, ""), tuple(calls.get(i, ())), more[i]) for i in sorted(trees.keys() | calls.keys()) if i
    )
    earlier = sum(count for i, count in lines.items() if 0 < i < n)
    return History(rounds, earlier, tuple(denials), counted)


def signals(history: History, n: int, tree: str, base_tree: str, numbers: Mapping[str, int]) -> Iterator[Signal]:
    """Every rule of H20 for iteration `n`, which ended in `tree`."""
    before = {one.n: one.tree for one in history.rounds if one.n < n and one.tree} | {0: base_tree}
    last = before[max(before)]
    if tree == last:
        yield Signal("unchanged", "", f"iteration {n} ends in the tree that it began with")
    elif (same := next((i for i, other in sorted(before.items()) if other == tree), None)) is not None:
        where = f"iteration {same}'s" if same else "the base's"
        yield Signal("returned_tree", "", f"iteration {n} ends in {where} tree again ({tree[:12]})")
    yield from _calls(history, n)
    burst, what = _burst(history.denials, numbers["denials_window"])
    if burst > numbers["denials"]:
        message = f"{burst} denials within {numbers['denials_window'] / 1000:g} s, most of them: {what}"
        yield Signal("denial_burst", "", message)


def _calls(history: History, n: int) -> Iterator[Signal]:
    present = next((one for one in history.rounds if one.n == n), None)
    if present is None or not present.calls:
        return
    here = Counter(present.calls)
    for other in history.rounds:  # calls without a hash may differ: such iterations are not the same
        if other.n < n and not (present.more or other.more) and Counter(other.calls) == here:
            message = f"iteration {n} makes the {len(present.calls)} tool call(s) of iteration {other.n}"
            yield Signal("same_calls", "", message)
            return
    call, times = here.most_common(1)[0]
    if times > SAME_CALL_MAX:
        yield Signal("same_calls", "", f"one tool call {times} times in iteration {n} ({call[:12]})")


def _burst(denials: tuple[tuple[int, str], ...], window_ms: int) -> tuple[int, str]:
    """The most denials within one window, and what most of these were."""
    best, what, start = 0, "", 0
    for end, (at, _) in enumerate(denials):
        while at - denials[start][0] > window_ms:
            start += 1
        if end - start + 1 > best:
            best = end - start + 1
            what = Counter(name for _, name in denials[start : end + 1]).most_common(1)[0][0]
    return best, what


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
