"""Starting, hearing and ending a program, with programs that do what none of ours should."""

import os
import sys
import threading
import time

import pytest

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.program import child
from inbounds.program.child import Child

PROLOGUE = """
import os, socket, sys, time
from inbounds.program import channel
control = socket.socket(fileno=int(sys.argv[1]))
def say(event, **more):
    channel.send(control, {"event": event, **more})
"""


@pytest.fixture
def play(monkeypatch):
    """Start a program of these lines instead of one of ours."""
    started = []

    def start(source: str) -> Child:
        monkeypatch.setattr(child, "command", lambda _, fd: [sys.executable, "-c", PROLOGUE + source, str(fd)])
        started.append(Child.start("inbounds.nothing", "player"))
        return started[-1]

    yield start
    for one in started:
        one.stop(seconds=0)


def test_events_come_in_order_and_the_end_comes_last(play):
    player = play("say('ready', n=0)\nsay('one')\nsay('two')\nsys.exit(7)")
    assert player.expect("ready") == {"event": "ready", "n": 0}
    heard, ended = [], threading.Event()
    player.listen(lambda event: heard.append(event["event"]), lambda: (heard.append("end"), ended.set()))
    assert ended.wait(20)
    assert heard == ["one", "two", "end"]
    assert not player.stopping
    assert player.stop() == player.stop() == 7
    with pytest.raises(HostError, match="player can't be told"):
        player.send({"op": "x"})


def test_what_it_says_instead_of_ready_is_raised(play):
    with pytest.raises(OperatorError, match=r"no such zone; expected a zone"):
        play("say('failed', exit=100, found='no such zone', expected='a zone')").expect("ready")
    with pytest.raises(HostError, match="no disk"):
        play("say('failed', exit=111, found='no disk')").expect("ready")
    with pytest.raises(HostError, match="did not get ready: it ended with 3"):
        play("sys.exit(3)").expect("ready")
    with pytest.raises(HostError, match="did not get ready: odd"):
        play("say('fault', why='odd')").expect("ready")
    with pytest.raises(HostError, match="did not start: a message that is no JSON"):
        play("control.send(b'hello')").expect("ready")


def test_one_that_says_nothing_is_given_up(play, monkeypatch):
    monkeypatch.setattr(child, "START_SECONDS", 0.2)
    player = play("time.sleep(60)")
    with pytest.raises(HostError, match="did not start: timed out"):
        player.expect("ready")
    assert player.process.poll() is not None


def test_one_that_closes_its_channel_and_lives_on_is_killed(play, monkeypatch):
    monkeypatch.setattr(child, "END_SECONDS", 1)
    player = play("say('ready')\ncontrol.close()\ntime.sleep(60)")
    player.expect("ready")
    ended = threading.Event()
    player.listen(lambda _: None, ended.set)
    assert ended.wait(20)
    assert player.process.returncode == -9


def test_one_that_ignores_its_farewell_is_killed(play):
    player = play("say('ready')\nwhile True: time.sleep(60)")
    player.expect("ready")
    player.listen(lambda _: None, lambda: None)
    started = time.monotonic()
    assert player.stop({"op": "stop"}, seconds=0.2) == -9
    assert time.monotonic() - started < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_fails_ends_the_program(play):
    player = play("say('ready')\nsay('one')\nchannel.receive(control)")
    player.expect("ready")
    ended = threading.Event()

    def hear(_):
        raise RuntimeError

    player.listen(hear, ended.set)
    assert ended.wait(20)
    assert player.stop() == 0


def test_nothing_of_ours_goes_along(play, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_OPERATOR", "x")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    player = play("say('ready', env=sorted(os.environ), fds=sorted(os.listdir('/proc/self/fd')), cwd=os.getcwd())")
    found = player.expect("ready")
    os.close(reading)
    os.close(writing)
    assert set(found["env"]) <= {"LC_CTYPE"}  # set by Python itself, where the locale is C
    assert len(found["fds"]) == 5  # the standard three, its channel, and the one that lists them
    assert found["cwd"] == "/"
