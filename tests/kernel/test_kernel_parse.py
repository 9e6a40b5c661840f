"""Records become events once, with the types that the rules rely on; what no rule reads is no event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts.limits import DEFAULT
from inbounds.kernel.events import BY_KIND, EVENTS, Accepted, Event, parse

SAMPLES = {int: 3, str: "x", bool: True}


def sample(event: type[Event]) -> dict[str, object]:
    if event is Accepted:
        return {"limits": DEFAULT.as_json(), "profile": "strict", "required_judges": ["scope"], "run_id": "ignored"}
    return {
        name: SAMPLES.get(field.type, ["a", "b"])  # type: ignore[call-overload] # field types are classes or tuple[str, ...]
        for name, field in event.__dataclass_fields__.items()
    }


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
        if name == "run_id":
            continue
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
