"""Runs pytest inside the tester's jail and writes down each outcome beside JUnit's; copied into /job, never imported.

Started as `python -I witness.py SPEC.json`: isolated, so that nothing of the repository (a planted pytest.py,
sitecustomize.py or PYTHONPATH entry) is imported before pytest and this file are. Plants canaries, tests that must be
reported as failed, beside the repository's own: a blanket forger turns them green and shows itself. Code under test
shares this process and can read all of it: this raises the price of forging, it does not make it impossible.
"""

from __future__ import annotations  # older pytest has no pytest.Config to evaluate

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

# Loaded before the repository's paths are on sys.path, so that the repository cannot stand in for it.
import _pytest.junitxml  # noqa: F401 - imported for its effect
import pytest

CANARY_MODULES_MAX = 64  # one canary per test module, up to this many; more would only cost time


def _canary() -> None:
    raise AssertionError("canary")


class Witness:
    """A pytest plugin that writes one JSON line per phase of each test to an open descriptor."""

    def __init__(self, path: str, nonce: str, modules_first: Iterable[str]) -> None:
        """`modules_first`: node ids of the modules that judge the run and so get a canary before all others."""
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._nonce = nonce
        self._first = set(modules_first)
        self._say(start=pytest.__version__, python=sys.version.split()[0])  # before any code of the repository runs

    def _say(self, **line: Any) -> None:
        os.write(self._out, json.dumps(line).encode("utf-8", "backslashreplace") + b"\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """One process: pytest-xdist would collect where this plugin does not see it."""
        for option, value in (("numprocesses", 0), ("dist", "no"), ("tx", [])):
            if hasattr(config.option, option):
                setattr(config.option, option, value)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)  # the old form: projects pin pytest 6 and 7
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Any:
        """After everybody else's say over what runs, add one canary to each module that has test functions."""
        yield
        modules: dict[str, Any] = {}
        at: dict[str, int] = {}
        for index, item in enumerate(items):
            module = item.getparent(pytest.Module) if isinstance(item, pytest.Function) else None
            if module is not None and module.nodeid not in modules:
                modules[module.nodeid], at[module.nodeid] = module, index
        chosen = sorted(modules, key=lambda path: (path not in self._first, path))[:CANARY_MODULES_MAX]
        for path in sorted(chosen, key=at.__getitem__, reverse=True):
            # an ordinary looking name, unknown before the run
            name = "test_" + hashlib.sha256(f"{self._nonce}:{path}".encode()).hexdigest()[:16]
            made = pytest.Function.from_parent(modules[path], name=name, callobj=_canary)
            items.insert(at[path], made)
            self._say(canary=made.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that could not be collected holds tests that nobody ran."""
        if report.failed:
            self._say(broken=report.nodeid, why=str(report.longrepr)[-500:])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One line per phase; the reader takes the worst."""
        marked = hasattr(report, "wasxfail")
        self._say(id=report.nodeid, when=report.when, outcome=report.outcome, xfail=marked)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Without this line the process went away before the end."""
        self._say(end=int(exitstatus))


def main(spec_path: str) -> int:
    """Run pytest as the specification says; its exit code is ours."""
    with open(spec_path, encoding="utf-8") as stream:
        spec = json.load(stream)
    sys.argv[:] = ["pytest"]
    sys.path[:0] = spec["sys_path"]
    witness = Witness(spec["witness"], spec["nonce"], spec["first"])
    return int(pytest.main(spec["args"], plugins=[witness]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
