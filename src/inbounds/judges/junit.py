"""JUnit XML, as pytest and other runners write it, parsed from untrusted bytes into outcomes by test id.

No DTD, no entities (XML bombs), limits on size, depth and count. Does not judge.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inbounds.judges.scope import shown

BYTES_MAX = 32 << 20  # a job's output limit; 100,000 tests write about 15 MB
CASES_MAX = 200_000  # more tests than the largest public Python suites have
DEPTH_MAX = 12  # testsuites/testsuite*/testcase/properties/property; nested suites exist, deep ones do not
ID_CHARS_MAX = 2_000  # a parametrised pytest id can be long; longer ones are cut alike on both sides
CHUNK = 1 << 16

# Worst first: a test reported twice (call and teardown) has its worst outcome.
ORDER = ("error", "failed", "skipped", "passed")


@dataclass(frozen=True, slots=True)
class Case:
    """One testcase: `file` as pytest's xunit1 family writes it ("" elsewhere), outcome as in ORDER."""

    file: str
    classname: str
    name: str
    outcome: str
    duration_ms: int
    marked: bool  # pytest's xfail

    @property
    def id(self) -> str:
        """Pytest's node id where a file is known, else "classname::name"."""
        if not self.name:
            return self.file or self.classname
        if not self.file:
            return f"{self.classname}::{self.name}" if self.classname else self.name
        module = self.file.removesuffix(".py").replace("/", ".")
        if not self.classname and self.name == module:
            return self.file
        inner = self.classname.removeprefix(module).strip(".")
        return "::".join([self.file, *[p for p in inner.split(".") if p], self.name])


class BadReportError(ValueError):
    """The bytes are no acceptable JUnit file; the message says why."""


def parse(data: bytes) -> tuple[Case, ...]:
    """All test cases; BadReportError for anything malformed, forbidden or over a limit."""
    if len(data) > BYTES_MAX:
        raise BadReportError(f"{len(data)} bytes, at most {BYTES_MAX}")
    return tuple(_cases(data))


def _cases(data: bytes) -> Iterator[Case]:
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    depth = count = 0
    try:
        for event, element in iterparse(io.BytesIO(data), events=("start", "end"), forbid_dtd=True):
            if event == "start":
                depth += 1
                if depth > DEPTH_MAX:
                    raise BadReportError(f"more than {DEPTH_MAX} levels deep")
                if depth == 1 and element.tag not in {"testsuites", "testsuite"}:
                    raise BadReportError(f"root element {shown(str(element.tag))[:80]!r} is none of JUnit's")
                continue
            depth -= 1
            if element.tag == "testcase":
                count += 1
                if count > CASES_MAX:
                    raise BadReportError(f"more than {CASES_MAX} test cases")
                yield _case(element)
            if element.tag in {"testcase", "testsuite"}:
                element.clear()  # memory stays bounded by one test case
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        # LookupError: an encoding that does not exist; ValueError includes BadReportError and bad encodings
        raise BadReportError(shown(f"{type(error).__name__}: {error}")[:300]) from error


def _case(element: Any) -> Case:
    outcome, marked = "passed", False
    for child in element:
        kind = {"failure": "failed", "error": "error", "skipped": "skipped"}.get(child.tag)
        if kind:
            outcome = worst(outcome, kind)
            marked = marked or "xfail" in str(child.get("type", ""))
    file, classname, name = (str(element.get(key, ""))[:ID_CHARS_MAX] for key in ("file", "classname", "name"))
    return Case(file, classname, name, outcome, _milliseconds(element.get("time")), marked)


def worst(one: str, other: str) -> str:
    """The graver of two outcomes."""
    return min(one, other, key=ORDER.index)


def _milliseconds(text: str | None) -> int:
    """A duration in seconds as text; 0 where it is missing or no sensible number, since nothing depends on it."""
    try:
        seconds = float((text or "0").replace(",", ""))
    except ValueError:
        return 0
    return int(seconds * 1000) if 0 <= seconds < 1e9 else 0  # noqa: PLR2004 - a billion seconds is no test
