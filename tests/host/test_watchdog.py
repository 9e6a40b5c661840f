"""Deadlines: on a clock of the test's own without waiting, and once for real against a slot that runs."""

import select
import signal
import time
from collections.abc import Iterator

import pytest
from groups_rig import LOAD, alive, ended, group, needs_root, start, uid_of, until
from hypothesis import given
from hypothesis import strategies as st

from inbounds.host import watchdog
from inbounds.host.watchdog import RETRY_MS, Deadlines, Watchdog

SLOT = 76


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def dog(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watchdog, Clock, list[int], set[int]]]:
    clock, called, stubborn = Clock(), list[int](), set[int]()
    monkeypatch.setattr(watchdog, "unix_ms", lambda: clock.ms + 5_000_000)

    def expired(slot: int) -> bool:
        called.append(slot)
        if slot == 9:
            raise OSError("it can't be ended now")
        return slot not in stubborn

    made = Watchdog(expired, now=clock)
    yield made, clock, called, stubborn
    made.close()


Rig = tuple[Watchdog, Clock, list[int], set[int]]


@pytest.mark.req("E9")
def test_each_slot_is_ended_once_at_its_deadline(dog: Rig) -> None:
    made, clock, called, _ = dog
    for slot, after in ((3, 300), (1, 100), (2, 200)):
        assert made.set(slot, clock.ms + 5_000_000 + after, living=False) == clock.ms + 5_000_000 + after
    for after, wanted in ((99, []), (1, [1]), (0, [1]), (200, [1, 2, 3]), (9_999, [1, 2, 3])):
        clock.ms += after
        made.handle()
        assert called == wanted


def test_a_deadline_only_comes_nearer_while_a_jail_lives(dog: Rig) -> None:
    made, clock, called, _ = dog
    unix = clock.ms + 5_000_000
    assert made.set(1, unix + 100, living=True) == unix + 100, "the first one"
    assert made.set(1, unix + 500, living=True) == unix + 100
    assert made.set(1, unix + 50, living=True) == unix + 50
    assert made.set(1, unix + 500, living=False) == unix + 500
    clock.ms += 400
    made.handle()
    assert called == []
    clock.ms += 100
    made.handle()
    assert called == [1]


def test_setting_the_wall_clock_moves_nothing(dog: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made, clock, called, _ = dog
    made.set(1, clock.ms + 5_000_000 + 100, living=True)
    monkeypatch.setattr(watchdog, "unix_ms", lambda: clock.ms - 1_000_000_000)
    clock.ms += 100
    made.handle()
    assert called == [1]


def test_one_that_does_not_end_is_tried_again_and_holds_up_nobody(dog: Rig) -> None:
    made, clock, called, stubborn = dog
    stubborn.add(4)
    for slot in (9, 4, 5):
        made.set(slot, clock.ms + 5_000_000, living=True)
    made.handle()
    assert sorted(called) == [4, 5, 9]
    made.handle()
    assert sorted(called) == [4, 5, 9], "not in a busy loop"
    clock.ms += RETRY_MS
    stubborn.clear()
    made.handle()
    assert sorted(called) == [4, 4, 5, 9, 9]
    clock.ms += RETRY_MS
    made.handle()
    assert sorted(called) == [4, 4, 5, 9, 9, 9]


def test_cleared_is_forgotten_and_far_is_no_fault(dog: Rig) -> None:
    made, clock, called, _ = dog
    made.set(1, clock.ms + 5_000_000, living=True)
    made.clear(1)
    made.clear(1)
    made.set(2, 1 << 62, living=False)
    made.set(3, 1, living=False)
    made.handle()
    assert called == [3]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50), st.booleans(), st.booleans())))
def test_the_nearest_agrees_with_a_plain_look(steps: list[tuple[int, int, bool, bool]]) -> None:
    deadlines, plain = Deadlines(), dict[int, int]()
    for slot, at, living, clears in steps:
        if clears:
            deadlines.clear(slot)
            plain.pop(slot, None)
        else:
            wanted = min(at, plain.get(slot, at)) if living else at
            assert deadlines.set(slot, at, living=living) == wanted
            plain[slot] = wanted
        assert deadlines.next() == min(plain.values(), default=None)
        assert set(deadlines.due(25)) == {slot for slot, at in plain.items() if at <= 25}


@needs_root
@pytest.mark.req("E9", "F7")
def test_a_slot_dies_at_its_deadline_without_any_supervisor() -> None:
    with group(SLOT) as made, ended(start(made, LOAD, "1", "50", uid=uid_of(SLOT))) as load:
        assert until(lambda: made.count() >= 50)
        dog = Watchdog(lambda _: made.freeze(5) is not None and made.kill() == 0)
        try:
            began = time.monotonic()
            dog.set(SLOT, time.time_ns() // 1_000_000 + 60_000, living=True)
            assert not select.select([dog.fileno()], [], [], 0.3)[0]
            dog.set(SLOT, time.time_ns() // 1_000_000 + 700, living=True)
            assert load.poll() is None, "the control: it lives"
            assert select.select([dog.fileno()], [], [], 30)[0]
            assert time.monotonic() - began >= 0.9
            dog.handle()
            assert load.wait(10) == -signal.SIGKILL
            assert until(lambda: not alive(uid_of(SLOT)), 2)
            assert not select.select([dog.fileno()], [], [], 1.2)[0], "it is over"
        finally:
            dog.close()
