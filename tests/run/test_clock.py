"""A run's clock goes on while the wall clock is set back: otherwise a limit in time would be nobody's."""

import os
import time

import pytest

from inbounds.run import clock


@pytest.mark.req("E1")
@pytest.mark.without("boot-clock")
def test_a_clock_set_back_does_not_lengthen_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "boot-clock":
        monkeypatch.setattr(clock, "now_ms", lambda: time.time_ns() // 1_000_000)
    before = clock.now_ms()
    real = time.time_ns()
    assert abs(before - real // 1_000_000) < 60_000, "the control: it is the time of day"
    monkeypatch.setattr(time, "time_ns", lambda: real - 3_600_000_000_000)
    time.sleep(0.02)
    assert clock.now_ms() - before >= 10
