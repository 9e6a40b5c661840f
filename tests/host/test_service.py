"""The service with real clients, friendly and hostile: who may, whose slot, what happens at each end."""

import contextlib
import errno
import os
import select
import signal
import stat
import struct
import time
from pathlib import Path

import pytest
from hostrig import (
    MIB,
    OPERATOR,
    OTHER,
    STRANGER,
    Client,
    Gone,
    Rig,
    as_user,
    gone,
    slot_traces,
    traces,
)

from inbounds.host import protocol, slots
from inbounds.host.protocol import NO_SLOT, Flag, Mechanism, Op, Phase


def _alive(pidfd: int) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    return not select.select([pidfd], [], [], 0)[0]


def _sleeper(rig: Rig, client: Client, seconds: int = 600) -> tuple[int, int]:
    """A jail that sleeps; its outer pid and pidfd. It has begun when this returns."""
    argv, sources = rig.wrap("/bin/sh", "-c", f"echo begun; exec sleep {seconds}")
    reading, writing = os.pipe()
    reply, pidfd = client.jail(*argv, sources=tuple(sources), stdout=writing)
    os.close(writing)
    assert reply.errno == 0
    said = os.read(reading, 100)
    os.close(reading)
    assert said == b"begun\n", said
    return reply.numbers["pid"], pidfd


# -- a life ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("F2", "F4")
def test_a_slots_whole_life_leaves_nothing(rig: Rig) -> None:
    before = traces(rig.paths)
    client = rig.connect()
    opened = client.open()
    assert opened.errno == 0, errno.errorcode[opened.errno]
    assert opened.numbers["uid"] == protocol.uid_of(client.slot) == opened.numbers["gid"]
    there = slot_traces(client.slot, rig.paths)
    assert len(there["accounts"]) == 2  # a user and a group
    assert bool(there["rules"]) == bool(opened.numbers["mechanisms"] & Mechanism.FILTER)
    assert traces(rig.paths) != before
    image = Path(rig.paths.of(client.slot)) / "volume" / "image"
    about = image.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (0, 0, 0o600)
    assert about.st_blocks * 512 >= 16 * MIB  # preallocated

    rig.write(client, "file", "the operator's")
    argv, sources = rig.wrap("/bin/sh", "-c", "cat /work0/file; id -u; echo jail > /work0/other", writable=1)
    said = client.run(*argv, sources=(*sources, client.path(rig.view(client))))
    assert said.splitlines() == ["the operator's" + str(protocol.uid_of(client.slot))]
    assert (rig.view(client) / "other").stat().st_uid == OPERATOR  # through the map
    raw = Path(rig.paths.raw(client.slot))
    assert (raw / "other").stat().st_uid == protocol.uid_of(client.slot)  # on disk
    state = client.ask(Op.STATE)
    assert state.numbers["phase"] == Phase.OPEN
    assert 0 < state.numbers["bytes"] < 16 * MIB

    # the client still has the view open: nothing of what was written is lost by that
    assert client.ask(Op.DETACH).errno == 0
    assert not os.path.ismount(raw)
    client.let_go()
    assert slots.load(rig.paths, client.slot).phase == Phase.KEPT  # type: ignore[union-attr]  # it is there
    assert client.ask(Op.ATTACH).errno == 0
    assert (rig.view(client) / "other").read_text() == "jail\n"
    number = client.slot
    assert client.ask(Op.DISCARD).errno == 0
    assert gone(number, rig.paths)
    rig.until(lambda: traces(rig.paths) == before, "a host as before")
    assert os.listdir(f"{rig.paths.state}/slots") == []


def test_hello_tells_what_the_host_can_give(rig: Rig) -> None:
    reply = rig.connect().ask(Op.HELLO)
    assert reply.numbers["version"] == protocol.VERSION
    assert Mechanism.USER | Mechanism.IMAGE | Mechanism.WATCHDOG in Mechanism(reply.numbers["mechanisms"])


@pytest.mark.req("H5", "H6")
def test_events_of_files_come_through_the_pipe_to_the_very_last(rig: Rig) -> None:
    from inbounds.host import events

    client = rig.connect()
    if not client.ask(Op.HELLO).numbers["mechanisms"] & Mechanism.EVENTS:
        assert client.open(flags=int(Flag.EVENTS)).errno == errno.EOPNOTSUPP
        pytest.skip(f"no file events here: {events.mechanism()}")
    opened = client.open(flags=int(Flag.EVENTS))
    assert opened.errno == 0
    assert opened.numbers["mechanisms"] & Mechanism.EVENTS
    pipe = os.dup(client.kept[-1])
    os.set_blocking(pipe, True)
    argv, sources = rig.wrap("/bin/sh", "-c", "echo x > /work0/made; cat /work0/made; sleep 2", writable=1)
    assert client.run(*argv, sources=(*sources, client.path(rig.view(client)))) == "x\n"
    client.let_go()
    client.close()
    told, rest = events.unpack(_whole(pipe))
    assert rest == b""
    assert told[-1].what & events.END
    assert any(one.path == b"made" and one.what & events.CREATED for one in told)
    assert any(one.path == b"made" and one.what & events.READ for one in told)
    assert any(one.path.endswith(b"/sleep") and one.what & events.EXECUTED for one in told)


def _whole(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def test_what_a_host_cannot_give_is_refused_and_never_left_out(rig: Rig) -> None:
    client = rig.connect()
    has = client.ask(Op.HELLO).numbers["mechanisms"]
    opened = client.open(flags=int(Flag.ENCRYPT))
    if has & Mechanism.ENCRYPTED:
        assert opened.numbers["mechanisms"] & Mechanism.ENCRYPTED
    else:
        assert opened.errno == errno.EOPNOTSUPP
        assert client.open().errno == 0
    in_force = client.ask(Op.DETACH).errno == 0 and client.ask(Op.ATTACH).numbers["mechanisms"]
    # asked for by every slot, so what the host has is in force
    for one in (Mechanism.MEMORY, Mechanism.PROCESSES, Mechanism.CPU, Mechanism.FREEZE, Mechanism.FILTER):
        assert bool(in_force & one) == bool(has & one), one


@pytest.mark.req("F4")
def test_a_second_run_gets_another_user_and_a_view_of_its_own(rig: Rig) -> None:
    first, second = rig.connect(), rig.connect(OTHER)
    assert first.open().numbers["uid"] != second.open().numbers["uid"]
    with as_user(OTHER, []):
        os.listdir(rig.view(second))
        with pytest.raises(PermissionError):
            os.listdir(rig.view(first))
        with pytest.raises(PermissionError):
            os.listdir(rig.paths.raw(second.slot))


# -- who -----------------------------------------------------------------------------------------------------------


def test_who_is_not_of_the_group_is_not_served(rig: Rig) -> None:
    with pytest.raises(PermissionError):  # the socket's mode
        rig.connect(STRANGER, groups=())
    os.chmod(rig.paths.socket, 0o666)  # and behind it the service's own look
    with pytest.raises(Gone):
        rig.connect(STRANGER, groups=()).ask(Op.HELLO)
    assert rig.connect(OPERATOR).ask(Op.HELLO).errno == 0
    assert rig.connect(0, groups=()).ask(Op.HELLO).errno == 0


@pytest.mark.parametrize("op", [Op.ATTACH, Op.DISCARD, Op.STATE])
def test_another_users_slot_is_refused_even_to_root(rig: Rig, op: Op) -> None:
    owner = rig.connect()
    owner.open()
    assert owner.ask(Op.DETACH).errno == 0
    for uid in (OTHER, 0):
        assert rig.connect(uid).ask(op, owner.slot).errno == errno.EPERM
    assert rig.connect().ask(op, owner.slot).errno == 0


@pytest.mark.parametrize("op", [Op.JAIL, Op.FREEZE, Op.KILL, Op.DEADLINE, Op.DETACH])
def test_a_slot_of_another_connection_is_refused(rig: Rig, op: Op) -> None:
    owner, thief = rig.connect(), rig.connect()
    owner.open()
    null = os.open("/dev/null", os.O_RDWR)
    fds = (null,) * 5 if op is Op.JAIL else ()
    numbers = {name: low for name, low, _ in protocol.NAMES[op]}
    assert thief.ask(op, owner.slot, fds, **numbers).errno == errno.ENOENT
    assert thief.ask(Op.ATTACH, owner.slot).errno == errno.EBUSY
    os.close(null)
    assert owner.ask(Op.STATE).numbers["phase"] == Phase.OPEN


def test_no_such_slot(rig: Rig) -> None:
    for op in (Op.ATTACH, Op.DISCARD, Op.STATE):
        assert rig.connect().ask(op, 79).errno == errno.ENOENT
    for uid in (OPERATOR, 0):
        assert rig.connect(uid).ask(Op.HALT, 79, kill=1).errno == errno.ENOENT


# -- what they send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0" * protocol.MESSAGE_BYTES,
        protocol.pack_request(Op.HELLO) + b"\0",
        protocol.pack_request(Op.HELLO)[:-1],
        b"A" * 60_000,
        protocol.FORM.pack(protocol.MAGIC, max(Op) + 1, NO_SLOT, *[0] * 8),
        protocol.FORM.pack(protocol.MAGIC, 0, NO_SLOT, *[0] * 8),
        protocol.FORM.pack(protocol.MAGIC + 1, 1, NO_SLOT, *[0] * 8),
        protocol.FORM.pack(protocol.MAGIC, 4, 0, 1 << 63, 1 << 63, *[0] * 6),
    ],
    ids=["byte", "zeros", "long", "short", "huge", "unknown op", "op 0", "version", "counts"],
)
def test_a_broken_message_ends_the_connection_and_its_slot_only(rig: Rig, data: bytes) -> None:
    client, other = rig.connect(), rig.connect()
    client.open()
    other.open()
    with pytest.raises(Gone):
        client.raw(Op.HELLO, data)
    rig.until(lambda: slots.load(rig.paths, client.slot) is None, "the slot's end: no agent was ever in it")
    assert other.ask(Op.STATE).numbers["phase"] == Phase.OPEN


@pytest.mark.parametrize("count", [1, 3, 200, 253])
def test_descriptors_that_no_operation_asked_for_end_the_connection(rig: Rig, count: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    client = rig.connect()
    with pytest.raises(Gone):
        client.raw(Op.HELLO, protocol.pack_request(Op.HELLO), (null,) * count)
    os.close(null)
    assert rig.connect().ask(Op.HELLO).errno == 0


def test_integers_out_of_bounds_are_answered_and_open_nothing(rig: Rig) -> None:
    client = rig.connect()
    huge = (1 << 64) - 1
    for name, _, _ in protocol.NAMES[Op.OPEN]:
        assert client.open(**{name: huge}).errno == errno.EINVAL, name
    assert client.open(deadline_ms=int(time.time() * 1000) - 1).errno == errno.EINVAL
    assert client.ask(Op.STATE, 1 << 63).errno == errno.EINVAL
    assert client.open(bytes=1 << 41).errno in (errno.EDQUOT, errno.ENOSPC, errno.EINVAL)
    assert os.listdir(f"{rig.paths.state}/slots") == []
    assert client.open().errno == 0


def test_a_client_that_goes_in_the_middle_of_opening(rig: Rig) -> None:
    client = rig.connect()
    numbers = {name: low for name, low, _ in protocol.NAMES[Op.OPEN]}
    numbers |= {"bytes": 32 * MIB, "deadline_ms": int((time.time() + 60) * 1000), "memory_bytes": 64 * MIB}
    client.send(protocol.pack_request(Op.OPEN, **numbers))
    client.close()
    rig.until(lambda: os.path.exists(rig.paths.of(0)) or os.listdir(f"{rig.paths.state}/slots") != [], "its beginning")
    rig.until(lambda: slots.records(rig.paths) == {}, "its end: nobody was told of it, so nobody will come back for it")
    assert rig.connect().ask(Op.HELLO).errno == 0


def test_a_client_that_never_reads_is_let_go(rig: Rig) -> None:
    client = rig.connect()
    client.socket.setblocking(False)
    for _ in range(100_000):
        try:
            client.socket.send(protocol.pack_request(Op.HELLO))
        except BlockingIOError:
            time.sleep(0.001)
        except (BrokenPipeError, ConnectionResetError):
            break
    else:
        pytest.fail("the service still takes what is sent by a client that does not read")
    assert rig.connect().ask(Op.HELLO).errno == 0


def test_one_connection_has_one_slot(rig: Rig) -> None:
    client = rig.connect()
    client.open()
    number = client.slot
    assert client.open().errno == errno.EBUSY
    assert client.ask(Op.STATE, number).numbers["phase"] == Phase.OPEN


def test_connections_of_one_user_have_a_ceiling(rig: Rig) -> None:
    from inbounds.host.service import SESSIONS_PER_USER

    kept = [rig.connect() for _ in range(SESSIONS_PER_USER)]
    assert kept[-1].ask(Op.HELLO).errno == 0
    with pytest.raises(Gone):
        rig.connect().ask(Op.HELLO)
    assert rig.connect(OTHER).ask(Op.HELLO).errno == 0  # nobody else is kept out
    kept[0].close()

    def again() -> bool:
        with contextlib.suppress(Gone):
            return rig.connect().ask(Op.HELLO).errno == 0
        return False

    rig.until(again, "a place for one more")


def test_slots_and_bytes_of_one_user_have_ceilings(idle: Rig) -> None:
    """Ceilings are looked at before anything is made, so that records alone show them."""
    os.makedirs(f"{idle.paths.state}/slots", mode=0o700)
    disk = os.statvfs(idle.paths.state)
    whole = disk.f_blocks * disk.f_frsize
    record = slots.Record(Phase.KEPT, OPERATOR, OPERATOR, 16 * MIB, 2048, 256 * MIB, 64, 100, 1, 0, 0)
    large = slots.Record(Phase.OPENING, OPERATOR, OPERATOR, whole // 2, 2048, 256 * MIB, 64, 100, 1, 0, 0)
    with pytest.raises(slots.Refused) as refused:
        slots.claim(idle.paths, slots.Record(*[*_numbers(record)[:3], whole // 2 + 1, *_numbers(record)[4:]]))
    assert refused.value.errno == errno.EDQUOT
    there = [record] * slots.SLOTS_PER_USER
    with pytest.raises(slots.Refused) as refused:
        slots._within_ceilings(idle.paths, record, there)
    assert refused.value.errno == errno.EDQUOT
    slots._within_ceilings(idle.paths, slots.Record(Phase.OPENING, OTHER, *_numbers(record)[2:]), there)
    others = slots.Record(Phase.OPENING, OTHER, *_numbers(large)[2:])
    with pytest.raises(slots.Refused) as refused:
        slots._within_ceilings(idle.paths, slots.Record(Phase.OPENING, *_numbers(large)[1:]), [others])
    assert refused.value.errno == errno.ENOSPC


def _numbers(record: slots.Record) -> list[int]:
    return [getattr(record, name) for name in record.__slots__]


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("E9")
def test_the_connections_end_kills_and_unmounts_and_keeps_the_image(rig: Rig) -> None:
    client = rig.connect()
    client.open()
    number, raw = client.slot, rig.paths.raw(client.slot)
    rig.write(client, "work", "kept")
    _, pidfd = _sleeper(rig, client)
    pidfd = os.dup(pidfd)
    assert _alive(pidfd)
    client.close()
    rig.until(lambda: slots.load(rig.paths, number).phase == Phase.KEPT, "the end")  # type: ignore[union-attr]  # it stays
    assert not _alive(pidfd)
    os.close(pidfd)
    assert not os.path.ismount(raw)
    back = rig.connect()
    assert back.ask(Op.ATTACH, number).errno == 0
    assert (Path(protocol.view_of(number, rig.paths.run)) / "work").read_text() == "kept"


@pytest.mark.req("E9")
def test_freeze_then_kill_leaves_no_survivor(rig: Rig) -> None:
    client = rig.connect()
    opened = client.open()
    _, pidfd = _sleeper(rig, client)
    frozen = client.ask(Op.FREEZE)
    assert frozen.numbers["processes"] >= 3  # two of bubblewrap's, one shell
    if opened.numbers["mechanisms"] & Mechanism.FREEZE:
        assert frozen.numbers["frozen"] == 1
    reply, _ = client.jail("/usr/bin/true")
    assert reply.errno == errno.EBUSY
    assert client.ask(Op.KILL, pid=0).numbers["survivors"] == 0
    assert not _alive(pidfd)
    assert client.ask(Op.STATE).numbers["processes"] == 0
    _sleeper(rig, client)  # behind a kill it can be used again


@pytest.mark.req("E9")
def test_a_kill_right_behind_a_start_leaves_no_survivor(rig: Rig) -> None:
    """The child may not have joined its groups yet, and be root still."""
    client = rig.connect()
    client.open()
    argv, sources = rig.wrap("/bin/sleep", "600")
    for _ in range(10):
        started = [client.jail(*argv, sources=tuple(sources))[1] for _ in range(3)]
        assert client.ask(Op.KILL, pid=0).numbers["survivors"] == 0
        assert not any(_alive(pidfd) for pidfd in started)
        assert client.ask(Op.STATE).numbers["processes"] == 0
        client.let_go()


def test_one_jail_of_two_can_be_killed(rig: Rig) -> None:
    client = rig.connect()
    client.open()
    pid, first = _sleeper(rig, client)
    _, second = _sleeper(rig, client)
    assert client.ask(Op.KILL, pid=1).errno == errno.ESRCH  # nobody else's process
    assert client.ask(Op.KILL, pid=os.getpid()).errno == errno.ESRCH
    assert client.ask(Op.KILL, pid=pid).errno == 0
    assert not _alive(first)
    assert _alive(second)
    assert client.ask(Op.STATE).numbers["processes"] == 3


@pytest.mark.req("E11")
def test_the_deadline_is_enforced_without_the_client(rig: Rig) -> None:
    client = rig.connect()
    client.open()
    _, pidfd = _sleeper(rig, client)
    now = int(time.time() * 1000)
    later = client.ask(Op.DEADLINE, deadline_ms=now + 10_000_000)
    assert later.numbers["deadline_ms"] < now + 1_000_000  # it can only come nearer while something runs
    assert client.ask(Op.DEADLINE, deadline_ms=now + 1500).numbers["deadline_ms"] == now + 1500
    rig.until(lambda: not _alive(pidfd), "the deadline", 30)
    assert time.time() * 1000 >= now + 1500
    with pytest.raises(Gone):
        client.ask(Op.STATE)
    rig.until(lambda: slots.load(rig.paths, client.slot).phase == Phase.KEPT, "the end")  # type: ignore[union-attr]  # it stays
    back = rig.connect()
    assert back.ask(Op.ATTACH, client.slot).errno == 0  # with a minute to say how long it may run now
    reply = back.ask(Op.DEADLINE, client.slot, deadline_ms=now + 500_000)
    assert reply.numbers["deadline_ms"] == now + 500_000


@pytest.mark.req("E11")
def test_a_session_that_hangs_does_not_outlive_its_deadline(rig: Rig) -> None:
    """The first process kills where the slot's own one does not: stopped here, as it were in an endless wait."""
    client = rig.connect()
    client.open()
    _, pidfd = _sleeper(rig, client)
    assert rig.process
    sessions = [
        int(pid) for pid in Path(f"/proc/{rig.process.pid}/task/{rig.process.pid}/children").read_text().split()
    ]
    client.ask(Op.DEADLINE, deadline_ms=int(time.time() * 1000) + 1000)
    for pid in sessions:
        os.kill(pid, signal.SIGSTOP)
    try:
        rig.until(lambda: not _alive(pidfd), "the first process's own look")
    finally:
        for pid in sessions:
            os.kill(pid, signal.SIGCONT)


def test_told_to_end_it_leaves_kept_images_and_nothing_else(rig: Rig) -> None:
    client = rig.connect()
    client.open()
    _, pidfd = _sleeper(rig, client)
    rig.stop()
    assert not _alive(pidfd)
    assert traces(rig.paths)["mounts"] == []
    assert slots.load(rig.paths, client.slot).phase == Phase.KEPT  # type: ignore[union-attr]  # it stays
    assert slot_traces(client.slot, rig.paths)["cgroups"] == []
    rig.start()
    assert rig.connect().ask(Op.ATTACH, client.slot).errno == 0


def test_there_is_one_service_over_one_state(rig: Rig) -> None:
    from inbounds.host.service import SERVICE

    assert slots.is_held(rig.paths, SERVICE)


def test_it_is_sealed_as_far_as_it_can_be(rig: Rig) -> None:
    from inbounds.host.service import KEPT_CAPABILITIES

    assert rig.process
    status = Path(f"/proc/{rig.process.pid}/status").read_text()
    words = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    kept = sum(1 << number for number in KEPT_CAPABILITIES.values())
    assert words["NoNewPrivs"] == "1"
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(words[name], 16) & ~kept == 0, name
    assert int(words["CapEff"], 16)  # it is not that there are none at all
    limits = Path(f"/proc/{rig.process.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core" in line).split()[4:6] == ["0", "0"]
    with as_user(OPERATOR, []), pytest.raises(PermissionError):
        os.readlink(f"/proc/{rig.process.pid}/exe")


def test_a_symbolic_link_in_place_of_a_directory_is_refused_at_start(idle: Rig) -> None:
    elsewhere = idle.top / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    os.symlink(elsewhere, idle.paths.state)
    with pytest.raises(AssertionError, match="not root's alone"):
        idle.start()
    os.unlink(idle.paths.state)
    os.mkdir(idle.paths.state, 0o777)
    os.chmod(idle.paths.state, 0o777)
    with pytest.raises(AssertionError, match="not root's alone"):
        idle.start()
    os.chmod(idle.paths.state, 0o700)
    idle.start()


def test_a_damaged_record_is_left_alone_and_hinders_nobody(idle: Rig) -> None:
    for directory in (idle.paths.state, f"{idle.paths.state}/slots", idle.paths.of(0)):
        os.mkdir(directory, 0o700)
    state = Path(idle.paths.of(0)) / "state"
    state.write_bytes(struct.pack("!I", 1) * 28)
    idle.start()
    client = idle.connect()
    assert client.open().errno == 0
    assert client.slot != 0
    assert idle.connect().ask(Op.DISCARD, 0).errno == errno.EUCLEAN
    assert state.exists()  # until all is removed


def test_a_number_that_is_somebodys_is_not_given(rig: Rig) -> None:
    """Whoever has a slot's number or name, and be it a process or a file only, keeps it."""
    from inbounds.host import accounts

    probe = rig.connect()
    probe.open()
    number = probe.slot
    assert probe.ask(Op.DISCARD).errno == 0
    left = f"/var/tmp/inbounds-test-{os.getpid()}"
    Path(left).touch()
    os.chown(left, protocol.uid_of(number), -1)
    try:
        other = rig.connect()
        assert other.open().errno == 0
        assert other.slot != number
        assert other.ask(Op.DISCARD).errno == 0
    finally:
        os.unlink(left)
    child = os.fork()
    if child == 0:
        os.setresuid(protocol.uid_of(number), protocol.uid_of(number), protocol.uid_of(number))
        signal.pause()
    try:
        rig.until(lambda: accounts.leftovers(protocol.uid_of(number)) == [f"process {child}"], "the other user")
        assert other.open().errno == 0
        assert other.slot != number
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
