"""Conduct: read back as written, strict about shape, and only tighter than the table of stop codes."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts import conduct
from inbounds.contracts.conduct import DEFAULT, Conduct
from inbounds.contracts.reasons import MEANING, Disposal, StopCode


@given(st.builds(Conduct, quarantine=st.lists(st.text()).map(tuple), slow_at_percent=st.integers(0, 99)))
def test_it_reads_back(made: Conduct) -> None:
    assert conduct.from_json(made.as_json()) == made


@pytest.mark.parametrize(
    "change",
    [{"slow_at_percent": True}, {"slow_at_percent": "80"}, {"resume_by": [1]}, {"recovery": None}, {"unknown": 1}],
)
def test_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        conduct.from_json({**DEFAULT.as_json(), **change})
    with pytest.raises(TypeError):
        conduct.from_json({key: value for key, value in DEFAULT.as_json().items() if key != "recovery"})


@pytest.mark.req("E13")
@pytest.mark.parametrize("code", list(StopCode))
def test_policy_may_quarantine_what_would_be_reverted_and_nothing_else(code: StopCode) -> None:
    stated = MEANING[code][0]
    assert DEFAULT.disposal(code) is stated
    asked = replace(DEFAULT, quarantine=(code.value,)).disposal(code)
    assert asked is (Disposal.QUARANTINE if stated is Disposal.REVERT else stated)
