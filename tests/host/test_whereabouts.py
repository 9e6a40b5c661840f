"""An execution whose process has ended before its event is read is told where it was in a jail of the slot, else not."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from groups_rig import needs_root, uid_of

from inbounds.host import events, whereabouts
from inbounds.host.events import Events, unpack

pytestmark = needs_root
UID = uid_of(74)
SHORT = os.path.realpath("/bin/true").encode()
# In mounts of its own, if it has any; runs a program for each line that it is sent, and waits for its end.
JAIL = f"""
import os, subprocess, sys
os.setgid({UID}), os.setuid({UID})
stays = subprocess.Popen(["/bin/sleep", "60"])
print(flush=True)
for line in sys.stdin:
    print(subprocess.run(["/bin/true"]).returncode, flush=True)
stays.kill()
"""


@contextlib.contextmanager
def jail(*prefix: str) -> Iterator["subprocess.Popen[str]"]:
    """Such a process, which has executed something that lives."""
    argv = [*prefix, "/usr/bin/python3", "-I", "-S", "-c", JAIL]
    made = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert made.stdout
        assert made.stdout.readline()
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGKILL)
        made.communicate()


def runs(one: "subprocess.Popen[str]") -> None:
    """Have it execute the short program; that has ended when this returns."""
    assert one.stdin
    assert one.stdout
    one.stdin.write("\n")
    one.stdin.flush()
    assert one.stdout.readline() == "0\n"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Events, int]]:
    """Events of the programs of /usr, and the pipe's other end."""
    reading, writing = os.pipe()
    own, place = os.open(tmp_path, os.O_PATH), os.open("/usr", os.O_PATH)
    made = Events(own, writing, UID)
    made.executed_on(place)
    os.close(own)
    os.close(place)
    yield made, reading
    os.close(reading)


def told(watched: tuple[Events, int]) -> list[int]:
    """Let it take in all that happened; what it said of the short program."""
    made, reading = watched
    while made.handle():
        pass
    os.set_blocking(reading, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reading, 1 << 16):
            data += part
    return [one.what for one in unpack(data)[0] if one.path.endswith(SHORT)]


@pytest.mark.req("H5")
def test_what_ended_is_told_by_its_mount(watched: tuple[Events, int]) -> None:
    with jail("unshare", "--mount") as inside, jail() as outside, jail("unshare", "--mount") as other:
        told(watched)  # those that live have been seen
        runs(inside)
        assert told(watched) == [events.EXECUTED | events.GONE]
        runs(outside)
        assert told(watched) == [], "the host's own mounts are everybody's"
        watched[0]._whereabouts._forget(*watched[0]._whereabouts._keepers)
        runs(other)
        assert told(watched) == [], "nobody has shown these mounts"
    watched[0].close()


def test_a_jail_that_is_over_is_believed_in_for_a_moment_only(
    watched: tuple[Events, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = -1
    with jail("unshare", "--mount") as inside:
        told(watched)
        fd = os.open(f"/proc/{inside.pid}/root/usr/bin/true", os.O_RDONLY)
        assert watched[0]._whereabouts.ours(fd)
    try:
        assert watched[0]._whereabouts.ours(fd)
        monkeypatch.setattr(whereabouts, "GRACE_SECONDS", 0)
        assert not watched[0]._whereabouts.ours(fd)
        monkeypatch.undo()
        assert not watched[0]._whereabouts.ours(fd), "forgotten"
    finally:
        os.close(fd)
    watched[0].close()
