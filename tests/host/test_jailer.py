"""What a jail's first process may: nothing of root's, nothing of the host's, no source but files of a disk's."""

import errno
import fcntl
import os
import select
import socket
from pathlib import Path

import pytest
from hostrig import MIB, OPERATOR, OTHER, SECONDS, Client, Gone, Rig, as_user, gone, slot_traces, traces

from inbounds.host import jailer, protocol
from inbounds.host.protocol import Op

SH = "/bin/sh"


def _client(rig: Rig) -> Client:
    client = rig.connect()
    opened = client.open()
    assert opened.errno == 0, errno.errorcode[opened.errno]
    return client


# -- given up ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("F4")
def test_what_runs_has_nothing_of_roots(rig: Rig) -> None:
    client = _client(rig)
    said = client.run(SH, "-c", "cat /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; umask; cat /proc/self/cgroup")
    words = dict(line.split(":", 1) for line in said.splitlines() if ":\t" in line)
    uid = str(protocol.uid_of(client.slot))
    assert words["Uid"].split() == words["Gid"].split() == [uid] * 4
    assert words["Groups"].split() == []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(words[name], 16) == 0, name
    assert words["NoNewPrivs"].strip() == "1"
    assert "\n0 1 2 3 4 0022" in said  # the four that were given, and ls's own
    assert f"inbounds-slot-{client.slot}" in said  # in its groups before it executed anything


@pytest.mark.req("F4")
def test_a_slots_user_leaves_files_nowhere_but_on_its_volume(rig: Rig) -> None:
    """Or the next owner of its number would have them; a set-id file among them."""
    client = _client(rig)
    places = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock"]
    for place in filter(os.path.isdir, places):
        name = f"{place}/inbounds-test-{os.getpid()}"
        said = client.run(SH, "-c", f"echo x > {name} && echo written; ipcmk -M 10 >/dev/null 2>&1; echo done")
        assert "written" not in said, place
        assert not os.path.lexists(name)
    uid = str(protocol.uid_of(client.slot))
    for table in ("shm", "sem", "msg"):
        kept = Path(f"/proc/sysvipc/{table}").read_text().splitlines()[1:]
        assert not [line for line in kept if uid in line.split()]
    view = client.path(rig.view(client))
    argv, sources = rig.wrap(SH, "-c", "echo x > /work0/own && echo written", writable=1)
    assert client.run(*argv, sources=(*sources, view)) == "written\n"  # the control
    # nosuid everywhere: a set-id program of the host's gives nothing
    mounts = client.run("/bin/cat", "/proc/self/mountinfo").splitlines()
    assert len(mounts) > 3
    assert not [line for line in mounts if "nosuid" not in line.split()[5]]


@pytest.mark.req("F4")
def test_volumes_are_out_of_the_jails_sight(rig: Rig) -> None:
    client, other = _client(rig), _client(rig)
    said = client.run("/bin/cat", "/proc/self/mountinfo")
    assert str(rig.top) not in said
    for slot in (client, other):
        assert "No such file" in client.run("/bin/ls", rig.paths.raw(slot.slot))
    assert "Permission denied" in client.run("/bin/ls", rig.paths.state)


def test_the_jails_end_is_seen_by_its_descriptor(rig: Rig) -> None:
    client = _client(rig)
    reply, pidfd = client.jail(SH, "-c", "exit 3")
    assert reply.numbers["pid"] > 0
    assert select.select([pidfd], [], [], SECONDS)[0]


def test_it_joins_every_group_before_it_executes(rig: Rig) -> None:
    client = _client(rig)
    said = client.run("/bin/cat", "/proc/self/cgroup")
    joined = [line for line in said.splitlines() if line.endswith(f"/inbounds-slot-{client.slot}")]
    assert len(joined) == len(slot_traces(client.slot, rig.paths)["cgroups"]) >= 1


def test_the_process_ceiling_holds_for_what_no_jail_is_around(rig: Rig) -> None:
    client = rig.connect()
    client.open(processes=16)
    said = client.run(SH, "-c", "for i in $(seq 40); do sleep 5 & done 2>&1; echo end")
    assert "fork" in said.lower() or "resource" in said.lower() or said == "", said
    assert client.ask(Op.STATE).numbers["processes"] <= 16
    assert client.ask(Op.KILL, pid=0).numbers["survivors"] == 0


# -- the argument list -------------------------------------------------------------------------------------------------


def test_argument_lists() -> None:
    def read(data: bytes) -> list[str]:
        fd = os.memfd_create("argv")
        os.write(fd, data)
        try:
            return jailer.read_arguments(fd)
        finally:
            os.close(fd)

    assert read(b"/bin/x\0\0a b\0") == ["/bin/x", "", "a b"]
    too_many, too_long = b"a\0" * (jailer.ARGUMENTS_MAX + 1), b"a" * jailer.ARGUMENT_BYTES_MAX + b"\0"
    for wrong in (b"", b"no end", too_many, too_long):
        with pytest.raises(OSError, match="argument list"):
            read(wrong)


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "empty", "proc"])
def test_what_is_no_argument_list_starts_nothing_and_hangs_nobody(rig: Rig, kind: str) -> None:
    client = _client(rig)
    reading, writing = os.pipe()
    pair = socket.socketpair()
    fds = {
        "pipe": reading,
        "socket": pair[0].fileno(),
        "directory": os.open("/", os.O_RDONLY),
        "empty": os.memfd_create("empty"),
        "proc": os.open("/proc/self/environ", os.O_RDONLY),
    }
    out, back = os.pipe()
    numbers = {"inherited": 4, "sources": 0, "flags": 0}
    null = os.open("/dev/null", os.O_RDWR)
    reply = client.ask(Op.JAIL, fds=(fds[kind], null, null, back, null), **numbers)
    os.close(back)
    assert reply.errno == 0
    with open(out, "rb") as file:
        assert b"inbounds host:" in file.read()
    rig.until(lambda: client.ask(Op.STATE).numbers["processes"] == 0, "its end")
    for fd in (*{reading, writing, null, *fds.values()} - {pair[0].fileno()},):
        os.close(fd)
    for one in pair:
        one.close()


# -- sources -----------------------------------------------------------------------------------------------------------


def _shown(rig: Rig, client: Client, *sources: int) -> str:
    """What a jail lists of its sources; what the child said where it could not stage them."""
    argv, first = rig.wrap(SH, "-c", "ls /work0", writable=1)
    said = client.run(*argv, sources=(*first, *sources))
    for fd in first:
        os.close(fd)
    return said


def test_a_directory_of_the_operators_is_shown_below_parents_that_nobody_else_may_enter(
    rig: Rig, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    shown = closed / "shown"
    shown.mkdir(parents=True)
    (shown / "file").touch()
    closed.chmod(0o700)
    client = _client(rig)
    assert _shown(rig, client, client.path(shown)) == "file\n"


@pytest.mark.parametrize(
    "path",
    ["/proc", "/proc/self/environ", "/proc/sys/kernel", "/sys", "/dev/null", "/dev/pts", "/sys/fs/cgroup/unified"],
)
def test_sources_of_the_kernels_own_file_systems_are_refused(rig: Rig, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this host has no {path}")
    client = _client(rig)
    said = _shown(rig, client, client.path(path))
    assert "a source" in said, said


def test_sources_that_are_no_files_are_refused(rig: Rig) -> None:
    client = _client(rig)
    reading, writing = os.pipe()
    pair = socket.socketpair()
    os.mkfifo(rig.top / "fifo")
    os.symlink("/etc", rig.top / "link")
    link = os.open(rig.top / "link", os.O_PATH | os.O_NOFOLLOW)
    for fd in (reading, pair[0].fileno(), client.path(rig.top / "fifo"), link, os.memfd_create("file")):
        said = _shown(rig, client, fd)
        assert said.startswith("inbounds host:"), said
    for fd in (reading, writing, link):
        os.close(fd)


@pytest.mark.req("F4")
def test_another_slots_volume_is_no_source(rig: Rig) -> None:
    client, other = _client(rig), rig.connect(OTHER)
    other.open()
    with as_user(OTHER, []):
        stolen = client.path(rig.view(other))  # as if it had been passed on
    assert "another slot's volume" in _shown(rig, client, stolen)
    assert _shown(rig, client, client.path(rig.view(client))) == ""  # the control: empty, and shown


@pytest.mark.req("F4")
def test_the_run_directory_is_no_source(rig: Rig) -> None:
    client = _client(rig)
    for path in (rig.paths.run, os.path.dirname(str(rig.view(client))), rig.paths.raw(client.slot)):
        said = _shown(rig, client, client.path(path))
        assert path == rig.paths.raw(client.slot) or said.startswith("inbounds host:"), (path, said)


def test_a_directory_swapped_for_a_link_shows_what_was_opened(rig: Rig) -> None:
    client = _client(rig)
    view = rig.view(client)
    with as_user(OPERATOR, []):
        (view / "real").mkdir()
        (view / "real" / "mine").touch()
        held = client.path(view / "real")
        (view / "real").rename(view / "moved")
        (view / "real").symlink_to("/etc")
    assert _shown(rig, client, held) == "mine\n"


def test_a_removed_directory_shows_nothing_else(rig: Rig) -> None:
    client = _client(rig)
    with as_user(OPERATOR, []):
        (rig.view(client) / "gone").mkdir()
        held = client.path(rig.view(client) / "gone")
        (rig.view(client) / "gone").rmdir()
        (rig.view(client) / "gone").mkdir()
        (rig.view(client) / "gone" / "new").touch()
    assert "new" not in _shown(rig, client, held)


def test_files_of_the_volume_are_the_slots_in_the_jail_and_the_operators_outside(rig: Rig) -> None:
    client = _client(rig)
    rig.write(client, "tool", "#!/bin/sh\necho ran\n")
    os.chmod(Path(rig.paths.raw(client.slot)) / "tool", 0o4755)  # root, who alone could
    argv, sources = rig.wrap(
        SH, "-c", "stat -c %u /work0/tool; /work0/tool; mknod /work0/null c 1 3; echo $?", writable=1
    )
    said = client.run(*argv, sources=(*sources, client.path(rig.view(client)))).splitlines()
    # executable where what seals the jail allows it, set-id without effect, no device
    assert said[:2] == [str(protocol.uid_of(client.slot)), "ran"]
    assert said[-1] != "0"


def test_too_many_sources_end_the_connection(rig: Rig) -> None:
    client = _client(rig)
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(Gone):
        client.ask(Op.JAIL, fds=(null,) * 20, inherited=4, sources=100, flags=0)
    os.close(null)
    assert rig.connect().ask(Op.HELLO).errno == 0


def test_nothing_of_a_jail_is_left_in_the_hosts_mounts(rig: Rig) -> None:
    before = traces(rig.paths)
    client = _client(rig)
    inside = traces(rig.paths)
    assert _shown(rig, client, client.path("/usr/share")) != ""
    assert traces(rig.paths) == inside
    client.close()
    again = rig.connect()
    assert again.ask(Op.ATTACH, client.slot).errno in (0, errno.EBUSY)
    rig.until(lambda: again.ask(Op.DISCARD, client.slot).errno == 0, "the slot's end")
    assert gone(client.slot, rig.paths)
    rig.until(lambda: traces(rig.paths) == before, "a host as before")


def test_the_volumes_limit_is_hard(rig: Rig) -> None:
    client = _client(rig)
    argv, sources = rig.wrap(
        SH, "-c", "dd if=/dev/zero of=/work0/x bs=1M count=64 2>&1; echo; stat -c %s /work0/x", writable=1
    )
    said = client.run(*argv, sources=(*sources, client.path(rig.view(client))))
    assert "No space left" in said
    assert int(said.splitlines()[-1]) < 16 * MIB


def test_a_locked_or_busy_descriptor_of_a_clients_stops_nobody(rig: Rig) -> None:
    """The lock file's bytes are root's; a client's own locks on what it passes change nothing."""
    client = _client(rig)
    held = os.open(rig.top / "locked", os.O_RDWR | os.O_CREAT)
    fcntl.lockf(held, fcntl.LOCK_EX)
    reply, _ = client.jail("/bin/true", stdout=held)
    assert reply.errno == 0
    os.close(held)
    with as_user(OPERATOR, []), pytest.raises(PermissionError):
        os.open(f"{rig.paths.state}/lock", os.O_RDONLY)


def test_the_kernel_refuses_a_slots_user_to_trace_what_starts_its_jail(rig: Rig) -> None:
    client = _client(rig)
    assert rig.process
    for name in ("environ", "mem", "maps", "fd", "root"):
        said = client.run("/bin/ls", "-L", f"/proc/{rig.process.pid}/{name}/.") + client.run(
            "/bin/cat", f"/proc/{rig.process.pid}/{name}"
        )
        assert "Permission denied" in said, (name, said)
