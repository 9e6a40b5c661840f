"""Two runs of one host never share a user number, whoever starts them; an ordinary user has but its own."""

import os
import subprocess
import sys

import pytest

from inbounds.sandbox.identity import identity

PROGRAM = (
    "import sys; from inbounds.sandbox.identity import identity; had = int(sys.argv[1]) or None;"
    " print(identity('one run', had).uid, flush=True); sys.stdin.read()"
)


def other(had: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(had)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give jails another user number than its own")
def test_a_number_belongs_to_one_living_process() -> None:
    with other() as first, other() as second:
        assert first.stdout is not None
        assert second.stdout is not None
        one, two = int(first.stdout.readline()), int(second.stdout.readline())
        first.communicate("")
        second.communicate("")
    assert one != two
    with other() as third:  # the control: once its holder is gone, the number is free again
        assert third.stdout is not None
        assert int(third.stdout.readline()) in {one, two}
        third.communicate("")
    assert identity("one run") == identity("one run")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give jails another user number than its own")
def test_a_run_that_goes_on_has_the_number_of_its_files_again() -> None:
    with other() as first, other() as second:
        assert first.stdout is not None
        assert second.stdout is not None
        wanted = int(first.stdout.readline())
        beside = int(second.stdout.readline())
        first.communicate("")
        second.communicate("")
    with other(beside) as again, other(beside) as late:
        assert again.stdout is not None
        assert late.stdout is not None
        got = {int(again.stdout.readline()), int(late.stdout.readline())}
        again.communicate("")
        late.communicate("")
    assert beside in got, "not the one that its name would lead to"
    assert wanted != beside
    assert len(got) == 2, "the control: one that a living process has is not given again"


def test_an_ordinary_user_keeps_its_own_number() -> None:
    who = identity("another run")
    assert who.dropped == (os.getuid() == 0)
    assert (who.uid == os.getuid()) == (os.getuid() != 0)
