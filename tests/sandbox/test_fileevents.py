"""The stream of file events: what was touched, by kind; and that no gap of it is ever silent."""

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from inbounds.contracts.errors import HostError
from inbounds.host import events
from inbounds.sandbox import fileevents
from inbounds.sandbox.fileevents import FileEvents


def record(what: int, path: str = "") -> bytes:
    name = os.fsencode(path)
    return events.RECORD.pack(what, 1, 0, len(name)) + name


@pytest.fixture
def pipe() -> Iterator[tuple[FileEvents, int]]:
    reading, writing = os.pipe()
    made = FileEvents(reading)
    yield made, writing
    with contextlib.suppress(OSError):  # the test has closed it
        os.close(writing)
    made.close()


@pytest.mark.req("H5", "H6")
def test_what_was_read_written_and_executed(pipe: tuple[FileEvents, int]) -> None:
    stream, writing = pipe
    whole = b"".join(
        [
            record(events.OPENED | events.READ, "workspace/rw/a.py"),
            record(events.CREATED, "workspace/rw/new.py"),
            record(events.CLOSED, "workspace/rw/mapped"),
            record(events.MOVED_FROM, "workspace/rw/old"),
            record(events.EXECUTED, "/usr/bin/python3"),
            record(events.CREATED | events.DIRECTORY, "workspace/rw/d"),
            record(events.READ, "jobs/1/work/a.py"),
            record(events.READ, "workspace/ro/shared/money.py"),
        ]
    )
    os.write(writing, whole[:20])  # cut anywhere
    time.sleep(0.05)
    os.write(writing, whole[20:])
    found = stream.take()
    assert found.complete
    assert found.executed == {"/usr/bin/python3"}
    mine = found.below("workspace/rw", "workspace/ro")
    assert mine.read == {"a.py", "shared/money.py"}
    assert mine.written == {"new.py", "mapped", "old"}
    os.write(writing, record(events.READ, "workspace/rw/later"))
    assert stream.take().read == {"workspace/rw/later"}  # and nothing twice
    os.write(writing, record(events.END))
    os.close(writing)
    assert stream.close() == ""


@pytest.mark.req("H5")
def test_an_overflow_is_told_at_once_and_marks_what_it_fell_into(pipe: tuple[FileEvents, int]) -> None:
    stream, writing = pipe
    told: list[str] = []
    stream.on_gap(told.append)
    os.write(writing, record(events.READ, "a") + record(events.INCOMPLETE))
    found = stream.take()
    assert not found.complete
    assert found.read == {"a"}
    assert told == [fileevents.OVERFLOW]
    assert stream.take().complete  # what comes after it is whole again


@pytest.mark.req("H5")
def test_a_stream_that_ends_in_the_middle_is_never_complete_again(pipe: tuple[FileEvents, int]) -> None:
    stream, writing = pipe
    told: list[str] = []
    stream.on_gap(told.append)
    os.close(writing)
    assert "ended in the middle" in stream.close()
    assert told
    assert not stream.take().complete
    assert not stream.take().complete


@pytest.mark.req("H5")
def test_names_without_end_are_bounded_and_said(pipe: tuple[FileEvents, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fileevents, "PATHS_MAX", 3)
    stream, writing = pipe
    os.write(writing, b"".join(record(events.READ, f"{n}") for n in range(3)))
    assert stream.take().complete  # the control
    os.write(writing, b"".join(record(events.READ, f"{n}") for n in range(5)))
    found = stream.take()
    assert len(found.read) == 3
    assert "more than 3 files" in found.why


def test_a_directory_that_is_gone_is_a_gap_in_names(pipe: tuple[FileEvents, int]) -> None:
    stream, writing = pipe
    os.write(writing, record(events.WRITTEN | events.PARTIAL, "lost"))
    found = stream.take()
    assert not found.complete
    assert found.written == set()


@pytest.mark.req("H5", "H6")
def test_what_the_other_end_has_not_told_yet_is_asked_for() -> None:
    reading, writing = os.pipe()

    def tell() -> None:
        os.write(writing, record(events.READ, "late"))

    stream = FileEvents(reading, settle=tell)
    assert stream.take().read == {"late"}
    os.write(writing, record(events.END))
    os.close(writing)
    stream.close()


@pytest.mark.req("H5", "H6")
def test_a_service_that_does_not_answer_makes_a_look_incomplete() -> None:
    reading, writing = os.pipe()

    def gone() -> None:
        raise HostError("it is gone")

    stream = FileEvents(reading, settle=gone)
    os.write(writing, record(events.READ, "told"))
    found = stream.take()
    assert (found.read, found.complete) == ({"told"}, False)
    assert "it is gone" in found.why
    os.write(writing, record(events.END))
    os.close(writing)
    assert stream.close() == ""
