"""Records become events once, with the types that the rules rely on; what no rule reads is no event."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts import conduct
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.limits import DEFAULT, Limits
from inbounds.kernel.events import BY_KIND, EVENTS, Event, StopDecided, parse

SAMPLES: dict[object, object] = {
    int: 3,
    str: "x",
    bool: True,
    Limits: DEFAULT.as_json(),
    Conduct: conduct.DEFAULT.as_json(),
}


def sample(event: type[Event]) -> dict[str, object]:
    """A record of that kind; a `ref` is the record's own hash and stands beside its data."""
    return {field.name: SAMPLES.get(field.type, ["a", "b"]) for field in fields(event) if field.name != "ref"}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.KIND)
def test_each_kind_is_read_back(event: type[Event]) -> None:
    found = parse(event.KIND, {**sample(event), "more": "stays in the journal"})
    assert isinstance(found, event)
    hash(found)  # lists of a record have become tuples


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.KIND)
@given(
    junk=st.one_of(
        st.none(), st.floats(), st.binary(), st.lists(st.integers(), min_size=1), st.dictionaries(st.text(), st.none())
    )
)
def test_a_malformed_record_is_an_error_and_never_an_event(event: type[Event], junk: object) -> None:
    for name in sample(event):
        with pytest.raises((TypeError, KeyError, ValueError)):
            parse(event.KIND, {**sample(event), name: junk})
        with pytest.raises((TypeError, KeyError)):
            parse(event.KIND, {key: value for key, value in sample(event).items() if key != name})


def test_a_bool_is_no_number() -> None:
    with pytest.raises(TypeError):
        parse("iteration.started", {"n": True})


def test_kinds_are_unique_and_others_are_no_events() -> None:
    assert len(BY_KIND) == len(EVENTS)
    assert parse("jail.started", {"role": "coder"}) is None


def test_the_stop_event_is_known_by_its_own_hash() -> None:
    """What a later record is bound to comes from the chain; a record cannot say it of itself."""
    data = {"code": "STOP_OPERATOR", "ref": "of its own making"}
    assert parse(StopDecided.KIND, data, "the hash") == StopDecided("STOP_OPERATOR", "the hash")


@pytest.mark.parametrize("field", ["limits", "conduct"])
@pytest.mark.parametrize("change", [{"more": 1}, {"iterations": 1.5, "resume_approvals": "1"}])
def test_limits_and_conduct_are_taken_whole_or_not_at_all(field: str, change: dict[str, object]) -> None:
    data = sample(BY_KIND["run.accepted"])
    whole = data[field]
    assert isinstance(whole, dict)
    with pytest.raises(TypeError):
        parse("run.accepted", {**data, field: {**whole, **change}})
    with pytest.raises(TypeError):
        parse("run.accepted", {**data, field: dict(list(whole.items())[1:])})
    assert parse("run.accepted", data) is not None
