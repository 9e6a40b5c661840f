import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts.verdict import Outcome
from inbounds.judges import progress
from inbounds.judges.progress import Standing

NEW = frozenset({"a"})


def standing(failing: str = "", accepted: str = "") -> Standing:
    return Standing(frozenset(failing), frozenset(accepted))


@pytest.mark.req("M6")
@pytest.mark.parametrize(
    ("best", "after", "outcome"),
    [
        (standing("axy"), standing("ax"), Outcome.PASS),
        (standing("axy"), standing("axy"), Outcome.FAIL),
        (standing("ax"), standing("ay"), Outcome.FAIL),
        (standing("ax"), standing("xyz", "a"), Outcome.PASS),
        (standing("x", "a"), standing("x", "a"), Outcome.FAIL),
        (standing("x", "a"), None, Outcome.INCONCLUSIVE),
    ],
)
def test_progress_is_fewer_failing_or_a_new_acceptance(
    best: Standing, after: Standing | None, outcome: Outcome
) -> None:
    assert progress.judge(standing("axy"), best, after, NEW).outcome is outcome


def test_breaking_and_mending_again_is_no_progress() -> None:
    start = standing("axy")
    mended, broken = standing("ax"), standing("axyz")
    best = progress.best(progress.best(start, mended), broken)
    assert progress.judge(start, best, mended, NEW).outcome is Outcome.FAIL


def test_the_score_runs_from_nothing_to_all() -> None:
    start = standing("axy")
    assert progress.score(start, start, NEW) == 0
    assert progress.score(start, standing("xy", "a"), NEW) == 33
    assert progress.score(start, standing("", "a"), NEW) == 100
    assert progress.score(start, standing("z", "a"), NEW) == 66


ids = st.frozensets(st.sampled_from("abcdefgh"))


@given(ids, ids, ids, ids)
def test_the_score_is_a_percentage(
    one: frozenset[str], two: frozenset[str], acc: frozenset[str], ok: frozenset[str]
) -> None:
    assert 0 <= progress.score(Standing(one), Standing(two, ok), acc) <= 100
