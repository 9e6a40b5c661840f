"""What every test run does: keep the record that `make requirements` reads, and run tests without a mechanism.

A test's `req` marks count only where it passed; its `without` marks name mechanisms whose removal must make it fail.
Knows nothing of what the tests do.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Test files import what stands beside them by its bare name, so such names are unique below tests/.
sys.path[:0] = [str(ROOT / "tools"), *sorted(str(p) for p in (ROOT / "tests").iterdir() if p.is_dir())]

import leftovers  # noqa: E402 - tools/ is no package; the lines above make it reachable
import record  # noqa: E402 - the same

WITHOUT = "INBOUNDS_TEST_WITHOUT"
SERVICE = "INBOUNDS_HOST_SOCKET"  # sandbox/hardened.py's PLACE; nothing of the product is imported before the session


def _ids(item: pytest.Item, name: str) -> list[str]:
    return sorted({str(arg) for mark in item.iter_markers(name) for arg in mark.args})


class Marks:
    """Notes per test its outcome and marks, and writes them at the end of the session."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tests: dict[str, dict[str, Any]] = {}
        self.whole = False
        self.fingerprint = record.fingerprint(ROOT)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        chosen = self.config.option
        self.whole = not (
            chosen.keyword
            or chosen.markexpr
            or chosen.deselect
            or chosen.ignore
            or chosen.maxfail
            or getattr(chosen, "lf", False)
        ) and (session.config.args_source is not pytest.Config.ArgsSource.ARGS)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        unknown = [name for name in _ids(item, "req") if name not in record.catalogue(ROOT)]
        if unknown:
            pytest.fail(f"docs/requirements.json has no {', '.join(unknown)}", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        entry = self.tests.setdefault(
            item.nodeid, {"outcome": "passed", "req": _ids(item, "req"), "without": _ids(item, "without")}
        )
        worse = {"passed": 0, "skipped": 1, "failed": 2}
        # An expected failure is reported as skipped (xfail) or passed (xpass): neither is a proof.
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        if worse[outcome] > worse[entry["outcome"]]:
            entry["outcome"] = outcome
        return report

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        try:
            record.write(ROOT, self.tests, self.fingerprint, whole=self.whole and finished)
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
    if not os.environ.get(WITHOUT):
        config.pluginmanager.register(Marks(config))
        config.pluginmanager.register(leftovers.Leftovers(config))  # with a mechanism off, more may be left


def pytest_report_header() -> str:
    import inbounds

    place = Path(inbounds.__file__).resolve()
    wheel = os.environ.get("INBOUNDS_TEST_WHEEL") == "1"
    if wheel and place.is_relative_to(ROOT / "src"):
        raise pytest.UsageError(f"the wheel is to be tested, but {place} is the checkout's")
    return f"inbounds under test: {'the installed wheel' if wheel else 'the checkout'}, {place.parent}"
