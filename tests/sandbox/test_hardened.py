"""The host service's client: what it says where there is none, whom it believes, what it sends, and how it ends."""

import errno
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeservice import EVERYTHING, FakeService

from inbounds.contracts.errors import HostError
from inbounds.host import protocol
from inbounds.host.protocol import Mechanism, Op
from inbounds.sandbox import hardened, maturity
from inbounds.sandbox.hardened import Slot, SlotLimits
from inbounds.sandbox.spec import ENFORCED, HARDENED

ME = os.getuid()
LIMITS = SlotLimits(
    bytes=64 << 20, inodes=4096, memory_bytes=1 << 30, processes=64, cpu_percent=100, deadline_ms=2_000_000_000_000
)


@pytest.fixture
def place() -> Iterator[Path]:
    """For sockets: a test's own directory has too long a name for one (108 bytes) where a session has workers."""
    made = Path(tempfile.mkdtemp(prefix="inbounds-test-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def service(place: Path) -> Iterator[FakeService]:
    made = FakeService(place)
    yield made
    made.stop()


@pytest.fixture
def slot(service: FakeService) -> Iterator[Slot]:
    made = Slot.open(LIMITS, service.path, ME)
    yield made
    made.close()


# -- is it there, and may it be believed


@pytest.mark.req("F10", "P4")
def test_every_bit_is_a_mechanism_and_every_mechanism_has_a_bit(service: FakeService) -> None:
    assert set(hardened.BITS) == set(Mechanism)
    assert sorted(name for names in hardened.BITS.values() for name in names) == sorted(HARDENED)
    found = hardened.reach(service.path, ME)
    assert found.usable
    assert set(found.enforcement.values()) == {ENFORCED}
    service.bits = EVERYTHING & ~Mechanism.FILTER
    states = hardened.reach(service.path, ME).enforcement
    assert [name for name, state in states.items() if state != ENFORCED] == ["packet_filter"]


@pytest.mark.req("F10")
def test_without_a_service_it_says_what_to_type(place: Path) -> None:
    found = hardened.reach(str(place / "none.sock"), ME)
    assert (found.problem, found.fix) == ("the host service is not installed", maturity.INSTALL)
    assert set(found.enforcement) == set(HARDENED)
    assert not any(state == ENFORCED for state in found.enforcement.values())
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(place / "dead.sock"))
    left.close()
    assert "does not answer" in hardened.reach(str(place / "dead.sock"), ME).problem


@pytest.mark.req("F10")
def test_who_is_not_of_the_group_is_told_so(service: FakeService) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may connect to every socket")
    os.chmod(service.path, 0)
    assert "inbounds-operators" in hardened.reach(service.path, ME).problem


@pytest.mark.req("F10")
def test_what_answers_must_be_the_expected_user(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = hardened.reach(service.path, ME + 1)
    assert not stranger.usable
    assert f"belongs to user {ME}" in stranger.problem
    assert service.asked == []  # nothing was said to it
    with pytest.raises(HostError, match="belongs to user"):
        Slot.open(LIMITS, service.path, ME + 1)
    monkeypatch.setenv(hardened.PLACE, service.path)
    assert hardened.reach().usable == (ME == 0)  # the environment says where, never whom to trust


@pytest.mark.parametrize(
    "reply",
    [b"", b"x" * protocol.MESSAGE_BYTES, bytes(protocol.MESSAGE_BYTES - 1), bytes(protocol.MESSAGE_BYTES + 1)],
)
def test_an_answer_of_another_form_is_no_answer(service: FakeService, reply: bytes) -> None:
    service.raw[Op.HELLO] = reply
    assert "gone" in hardened.reach(service.path, ME).problem


def test_another_version_is_no_service(service: FakeService) -> None:
    service.raw[Op.HELLO] = protocol.pack_reply(Op.HELLO, 0, 0, protocol.VERSION + 1, int(EVERYTHING))
    assert "another version" in hardened.reach(service.path, ME).problem


# -- a slot


def test_a_slot_is_asked_for_with_integers_alone(service: FakeService, slot: Slot) -> None:
    asked = service.asked[-1]
    assert asked.op is Op.OPEN
    assert (asked["bytes"], asked["inodes"], asked["processes"]) == (64 << 20, 4096, 64)
    assert asked["flags"] == protocol.Flag.EVENTS
    assert (slot.number, slot.uid, slot.gid) == (3, ME, os.getgid())
    assert slot.view == protocol.view_of(3, str(Path(service.path).parent))
    assert slot.state()["bytes"] == 2
    assert slot.deadline(1_000) == 1_000


def test_no_events_are_asked_for_where_the_host_has_none(service: FakeService) -> None:
    service.bits = EVERYTHING & ~Mechanism.EVENTS
    Slot.open(LIMITS, service.path, ME).close()
    assert service.asked[-1]["flags"] == 0


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EUSERS, "every slot"), (errno.ENOSPC, "no room"), (errno.EDQUOT, "one user may")]
)
def test_a_refusal_is_said_in_words(service: FakeService, number: int, said: str) -> None:
    service.refuse[Op.OPEN] = number
    with pytest.raises(HostError, match=said) as refused:
        Slot.open(LIMITS, service.path, ME)
    assert not isinstance(refused.value, hardened.ServiceGoneError)
    assert "discard" in refused.value.fix


def test_a_jail_gets_its_arguments_and_descriptors_and_no_path(service: FakeService, slot: Slot) -> None:
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    words = ("/bin/echo", "one word", "", "two\nlines", "\udcff")
    pid, pidfd = slot.launch(words, [null, writing, null, null], [null])
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"one word  two\nlines \xff\n"
    assert os.waitpid(pid, 0)[0] == pid
    asked = service.asked[-1]
    assert (asked.op, asked["inherited"], asked["sources"]) == (Op.JAIL, 4, 1)
    assert service.arguments == [list(words)]
    os.close(pidfd)
    os.close(null)


@pytest.mark.req("E10")
def test_what_does_not_freeze_is_killed(service: FakeService, slot: Slot) -> None:
    killed: list[int] = []
    assert slot.hold(lambda: killed.append(1)) == "cgroup.freeze"
    assert killed == []
    service.frozen = 0
    assert slot.hold(lambda: killed.append(1)) == "killed"
    assert killed == [1]


@pytest.mark.req("E10")
def test_survivors_are_never_passed_over(service: FakeService, slot: Slot) -> None:
    assert slot.strike(4242)
    assert service.asked[-1]["pid"] == 4242
    service.survivors = 2
    with pytest.raises(HostError, match="2 processes of slot 3 survived"):
        slot.strike(4242)


@pytest.mark.req("E13")
def test_a_service_that_dies_is_told_of_and_nothing_hangs(service: FakeService, slot: Slot) -> None:
    told = threading.Event()
    slot.when_gone(told.set)
    assert slot.alive()
    assert not told.wait(0.2)
    service.stop()
    assert told.wait(10)
    assert not slot.alive()
    assert not slot.strike(1)  # somebody else has to
    with pytest.raises(hardened.ServiceGoneError):
        slot.freeze()
    killed: list[int] = []
    assert slot.hold(lambda: killed.append(1)) == "killed"
    assert killed == [1]


def test_letting_go_is_no_death_of_the_service(service: FakeService, slot: Slot) -> None:
    told = threading.Event()
    slot.when_gone(told.set)
    slot.discard()
    assert service.asked[-1].op is Op.DISCARD
    assert not told.wait(1.5)
    with pytest.raises(hardened.ServiceGoneError, match="given back"):
        slot.state()


def test_a_late_answer_is_not_taken_for_the_next_ones(
    service: FakeService, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardened, "SECONDS_MAX_USUAL", 0.2)

    def late(request: object, fds: object) -> tuple[tuple[int, ...], list[int]]:
        time.sleep(0.5)
        return (1, 7), []

    monkeypatch.setattr(service, "_answer", late)
    with pytest.raises(hardened.ServiceGoneError):
        slot.freeze()
    assert not slot.alive()  # which ends what runs in it


# -- what is in force


@pytest.mark.req("F10")
def test_the_services_word_is_not_enough_where_the_kernel_can_be_asked(service: FakeService, slot: Slot) -> None:
    """This very process is in no slot's group, and the view is a plain directory."""
    found = slot.enforcement(os.getpid())
    assert found["packet_filter"] == found["watchdog"] == ENFORCED  # the service's word
    for name in ("cgroup_memory", "freezer", "volume_image"):
        assert found[name].startswith("absent: "), name
    child = os.fork()
    if not child:
        signal.pause()
    try:
        slot.uid += 1
        assert "not " in slot.enforcement(child)["dedicated_user"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
