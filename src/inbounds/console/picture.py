"""The two small pictures of a report, as numbers for the template: failing tests and spend per iteration.

Geometry only: the template writes the SVG, so that escaping stays in one place. Coordinates are SVG user units.
"""

from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 16, 28
# More iterations than this are drawn as every k-th: a bar must stay wider than a hair.
BARS_MAX = 40
LABELS_MAX = 14  # below an axis, on a phone


@dataclass(frozen=True, slots=True)
class Bar:
    """One iteration: position, height, its label and the words for people who do not see it."""

    x: int
    y: int
    width: int
    height: int
    label: str
    value: str
    good: bool
    said: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Both panels; `path` and `area` trace the spend, `cap_y` is where the budget is drawn, -1 if it is off the top."""

    bars: tuple[Bar, ...]
    bars_said: str
    tests_ticks: tuple[tuple[int, str], ...]
    path: str
    area: str
    dots: tuple[tuple[int, int, str], ...]
    cap_y: int
    cap: str
    spend_ticks: tuple[tuple[int, str], ...]
    spend_said: str
    spend_labels: tuple[tuple[int, str], ...]
    end: tuple[int, int]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT


def draw(manifest: dict[str, Any]) -> Picture | None:
    """From the manifest's progress and cost; None when no iteration finished."""
    from inbounds.console.sentences import money

    progress = manifest["progress"] if isinstance(manifest["progress"], list) else []
    progress = [step for step in progress if type(step["failing_after"]) is int and type(step["failing_before"]) is int]
    if not progress:
        return None
    stride = -(-len(progress) // BARS_MAX)
    picked = [step for i, step in enumerate(progress) if i % stride == 0 or i == len(progress) - 1]
    counts = [("start", progress[0]["failing_before"], False)]
    counts += [(str(step["n"]), step["failing_after"], bool(step["progress"])) for step in picked]
    top = max(1, *(count for _, count, _ in counts))
    slot = (WIDTH - LEFT - RIGHT) // len(counts)
    bars = tuple(
        _bar(i, slot, name, count, top=top, good=good or count == 0) for i, (name, count, good) in enumerate(counts)
    )
    spent, total = [0], 0
    for step in progress:
        total += step["cost_micro_usd"]
        spent.append(total)
    budget = manifest["cost"]["budget_micro_usd"]
    cap = budget if type(budget) is int else 0
    # The cap is drawn to scale where the spend can still be seen beside it.
    high = cap if cap and total * 6 >= cap else max(1, total + total // 8)
    points = [(_along(i, len(spent)), _up(value, high)) for i, value in enumerate(spent)]
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    base = HEIGHT - BOTTOM
    every = -(-len(points) // LABELS_MAX)
    story = ", ".join(f"{'before the start' if name == 'start' else f'iteration {name}'} {n}" for name, n, _ in counts)
    return Picture(
        bars=bars,
        bars_said=f"Failing tests: {story}.",
        tests_ticks=((_up(top, top), str(top)), (base, "0")),
        path=path,
        area=f"{path} L{points[-1][0]} {base} L{points[0][0]} {base} Z",
        dots=tuple(
            (x, y, f"{'start' if i == 0 else f'iteration {i}'}: {money(value)}")
            for i, ((x, y), value) in enumerate(zip(points, spent, strict=True))
            if len(points) <= BARS_MAX
        ),
        spend_labels=tuple((x, "start" if i == 0 else str(i)) for i, (x, _) in enumerate(points) if i % every == 0),
        end=points[-1],
        cap_y=_up(cap, high) if cap == high else -1,
        cap=money(cap) if cap else "not observed",
        spend_ticks=((_up(high, high), money(high)), (base, "$0")) if cap == high else ((base, "$0"),),
        spend_said=f"Spend by iteration, {money(total)} in the end, of a budget of {money(budget)}.",
    )


def _bar(i: int, slot: int, name: str, count: int, *, top: int, good: bool) -> Bar:
    base, width = HEIGHT - BOTTOM, max(2, min(44, slot * 2 // 3))
    height = max(2, (base - TOP) * count // top)
    said = f"{'Before the start' if name == 'start' else f'Iteration {name}'}: {count} tests fail"
    return Bar(LEFT + slot * i + (slot - width) // 2, base - height, width, height, name, str(count), good, said)


def _along(i: int, count: int) -> int:
    return LEFT + 6 + (WIDTH - LEFT - RIGHT - 12) * i // max(1, count - 1)


def _up(value: int, high: int) -> int:
    base = HEIGHT - BOTTOM
    return base - (base - TOP) * min(value, high) // max(1, high)
