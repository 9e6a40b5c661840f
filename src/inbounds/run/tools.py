"""The tools that an agent calls through the broker: today run_tests alone, run in the tester's jail (C5, C6).

Calls are answered one after the other by one long-lived thread, because jails are bound to the thread that starts them.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from inbounds.broker.control import BrokerProcess, Call
from inbounds.broker.tools import Tool
from inbounds.contracts.errors import InboundsError
from inbounds.run.clock import now_ms
from inbounds.run.judging import Tested

RUN_TESTS = Tool(
    name="run_tests",
    description="Run the tests of this thread on the files as they are now, and say which fail and why.",
    schema={"type": "object", "properties": {}},
)
FAILING_MAX = 100
OUTPUT_CHARS_MAX = 8_000
STOP_SECONDS_MAX = 10.0  # reading back the files of a jail that was killed
Post = Callable[[str, Mapping[str, Any]], None]


class Tools:
    """Answers the broker's calls."""

    def __init__(self, broker: BrokerProcess, tests: Callable[[], Tested], post: Post) -> None:
        """`tests` takes the workspace as it is now and runs its tests."""
        self._broker, self._tests, self._post = broker, tests, post
        self._calls: queue.Queue[Call | None] = queue.Queue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._answer_all, name="tools", daemon=True)
        self._thread.start()

    def call(self, call: Call) -> None:
        """Take a call; the broker bounds how many wait."""
        self._calls.put(call)

    def close(self) -> None:
        """Stop, step 1: calls that wait are refused instead of begun (E10)."""
        self._closed.set()

    def stop(self) -> None:
        """End the thread, once what it is at is over; its jail is dead by then."""
        self._closed.set()
        self._calls.put(None)
        self._thread.join(STOP_SECONDS_MAX)

    def _answer_all(self) -> None:
        while (call := self._calls.get()) is not None:
            started, began_at_ms = time.monotonic(), now_ms()
            try:
                if self._closed.is_set():
                    text, outcome, is_error = "the run is stopping", "refused", True
                else:
                    text, outcome, is_error = answer(self._tests()), "ok", False
            except InboundsError as fault:
                text, outcome, is_error = f"the tests could not be run: {fault.found}", "failed", True
            ms = int((time.monotonic() - started) * 1000)
            self._post("tool.called", {"tool": call.tool, "outcome": outcome, "ms": ms, "began_at_ms": began_at_ms})
            try:
                self._broker.answer(call.id, text, is_error)
            except InboundsError:
                return  # the broker is gone; its own end says why


def answer(tested: Tested) -> str:
    """What an agent reads: the verdict, the failing tests, the end of the output."""
    facts = tested.verdict.facts
    failing = list(facts.get("failing", ()))
    lines = [f"{tested.verdict.outcome}: {tested.verdict.summary}"]
    lines += [f"- fails: {test}" for test in failing[:FAILING_MAX]]
    return "\n".join([*lines, "", tested.output[-OUTPUT_CHARS_MAX:]])
