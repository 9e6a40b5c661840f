"""What every test run does: keep the record that `make requirements` reads, and run tests without a mechanism.

A test's `req` marks count only where it passed; its `without` marks name mechanisms whose removal must make it fail.
Knows nothing of what the tests do.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Test files import what stands beside them by its bare name, so such names are unique below tests/.
sys.path[:0] = [str(ROOT / "tools"), *sorted(str(p) for p in (ROOT / "tests").iterdir() if p.is_dir())]

import leftovers  # noqa: E402 - tools/ is no package; the lines above make it reachable
import record  # noqa: E402 - the same

WITHOUT = "INBOUNDS_TEST_WITHOUT"
# What starts a host service of its own: they share the host's user numbers, and tell what is left of a slot by these.
SERVICES = "hostrig"
ROOM = "INBOUNDS_TEST_ROOM"  # where workers of one session agree on who is alone
SERVICE = "INBOUNDS_HOST_SOCKET"  # sandbox/hardened.py's PLACE; nothing of the product is imported before the session


def _ids(item: pytest.Item, name: str) -> list[str]:
    return sorted({str(arg) for mark in item.iter_markers(name) for arg in mark.args})


class Taking:
    """Where tests run: unknown requirements fail, and each report says what its test is marked with."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        unknown = [name for name in _ids(item, "req") if name not in record.catalogue(ROOT)]
        if unknown:
            pytest.fail(f"docs/requirements.json has no {', '.join(unknown)}", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        report.inbounds_marks = {"req": _ids(item, "req"), "without": _ids(item, "without")}
        return report


class Alone:
    """Tests of several workers at once, but one that is marked `alone`, or tried again, with no other beside it.

    A reader-writer lock out of two files; who waits to be alone holds the turnstile, so that nobody new goes in.
    """

    def __init__(self, place: str) -> None:
        self.turnstile = open(f"{place}-turnstile", "wb")  # noqa: SIM115 # for as long as the process
        self.room = open(f"{place}-room", "wb")  # noqa: SIM115 # the same
        self.settings: dict[str, Any] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._enter(alone=item.get_closest_marker("alone") is not None)
        try:
            return (yield)
        finally:
            fcntl.flock(self.room, fcntl.LOCK_UN)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if getattr(item, "execution_count", 1) > 1:  # pytest-rerunfailures counts them
            item.ihook.pytest_timeout_cancel_timer(item=item)
            fcntl.flock(self.room, fcntl.LOCK_UN)  # before the turnstile: two that try again would wait for each other
            self._enter(alone=True)
            item.ihook.pytest_timeout_set_timer(item=item, settings=self.settings[item.nodeid])

    @pytest.hookimpl(tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> None:
        self.settings = {item.nodeid: settings}

    def _enter(self, *, alone: bool) -> None:
        fcntl.flock(self.turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(self.room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self.turnstile, fcntl.LOCK_UN)


class Marks:
    """Gathers per test its outcome and marks, from every worker, and writes them at the end of the session."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tests: dict[str, dict[str, Any]] = {}
        self.fingerprint = record.fingerprint(ROOT)

    def _whole(self) -> bool:
        chosen = self.config.option
        return not (
            chosen.keyword
            or chosen.markexpr
            or chosen.deselect
            or chosen.ignore
            or chosen.maxfail
            or getattr(chosen, "lf", False)
        ) and (self.config.args_source is not pytest.Config.ArgsSource.ARGS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        marks = getattr(report, "inbounds_marks", {"req": [], "without": []})  # none: the worker died in it
        entry = self.tests.setdefault(report.nodeid, {"outcome": "passed", **marks})
        # what passed only at its second try proves nothing
        worse = {"passed": 0, "rerun": 1, "skipped": 2, "failed": 3}
        # An expected failure is reported as skipped (xfail) or passed (xpass): neither is a proof.
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        if worse[outcome] > worse[entry["outcome"]]:
            entry["outcome"] = outcome

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        try:
            record.write(ROOT, self.tests, self.fingerprint, whole=self._whole() and finished)
        except OSError as fault:
            self.config.issue_config_time_warning(
                pytest.PytestWarning(f"no record for make requirements: {fault}"), stacklevel=2
            )


class Removed:
    """`--without M`: only the tests marked with M, and success means that every one of them failed."""

    def __init__(self, mechanism: str) -> None:
        self.mechanism = mechanism
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = [item for item in items if self.mechanism in _ids(item, "without")]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = (
                report.outcome if report.when == "call" else f"{report.when} {report.outcome}"
            )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.outcomes:
            session.exitstatus = int(any(outcome != "failed" for outcome in self.outcomes.values()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"without {self.mechanism}")
        for name, outcome in sorted(self.outcomes.items()):
            verdict = "fails, as it must" if outcome == "failed" else f"{outcome.upper()}: this mark is not honest"
            terminalreporter.line(f"{name}: {verdict}")


class Listing:
    """`--list-without FILE`: write which test is marked with which mechanisms, and run nothing."""

    def __init__(self, target: str) -> None:
        self.target = target

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        marked = {item.nodeid: found for item in items if (found := _ids(item, "without"))}
        Path(self.target).write_text(json.dumps(marked), encoding="utf-8")
        items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, because they share fixtures; all that make slots on the host to one, too."""
    from xdist.scheduler import LoadFileScheduling

    @cache
    def makes_slots(file: str) -> bool:
        return file.startswith("tests/host/") or SERVICES in (ROOT / file).read_text(encoding="utf-8")

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return SERVICES if makes_slots(file) else file

    return Scheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("inbounds")
    group.addoption("--without", metavar="MECHANISM", help="run the tests marked with it, each of which must then fail")
    group.addoption("--list-without", metavar="FILE", help="write the marked tests and their mechanisms as JSON")


def pytest_configure(config: pytest.Config) -> None:
    # Whatever is installed on this machine: no host service answers, unless a test starts one of its own.
    os.environ[SERVICE] = str(Path(tempfile.gettempdir()) / f"no-service-of-{os.getpid()}" / "host.sock")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores interrupts, and so does all that it starts; a person's terminal does not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if target := config.getoption("--list-without"):
        config.pluginmanager.register(Listing(target))
        return
    if mechanism := config.getoption("--without"):
        os.environ[WITHOUT] = mechanism
        config.pluginmanager.register(Removed(mechanism))
    if os.environ.get(WITHOUT):
        return
    config.pluginmanager.register(Taking())
    if hasattr(config, "workerinput"):  # what workers did is gathered, and what they left is looked for, by one
        config.pluginmanager.register(Alone(os.environ.pop(ROOM)))  # a session within a test is none of this one
        return
    if getattr(config.option, "numprocesses", None):
        place = tempfile.mkdtemp(prefix="pytest-inbounds-")  # beside the sessions' own, which is not there yet
        os.environ[ROOM] = os.path.join(place, "tests")
        config.add_cleanup(lambda: shutil.rmtree(place))
    config.pluginmanager.register(Marks(config))
    config.pluginmanager.register(leftovers.Leftovers(config))  # with a mechanism off, more may be left


def pytest_report_header() -> str:
    import inbounds

    place = Path(inbounds.__file__).resolve()
    wheel = os.environ.get("INBOUNDS_TEST_WHEEL") == "1"
    if wheel and place.is_relative_to(ROOT / "src"):
        raise pytest.UsageError(f"the wheel is to be tested, but {place} is the checkout's")
    return f"inbounds under test: {'the installed wheel' if wheel else 'the checkout'}, {place.parent}"
