"""A granted GPU's nodes are in the jail that was granted them, and nowhere else; what is no such node is refused.

Stand-ins: /dev/zero plays a GPU, /dev/null its control node. They open for everybody and answer no ioctl of NVIDIA's,
which is enough to tell the kernel's "no such ioctl" (ENOTTY) from Landlock's refusal (EACCES).
"""

import os
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.contracts.errors import HostError, OperatorError, RefusedError
from inbounds.sandbox.gpu import NONE, Device, Grant, Host, from_json, read_majors
from inbounds.sandbox.jail import drop_spare, keep_spare
from inbounds.sandbox.spec import JailSpec

ZERO = Device("/dev/zero", "/dev/nvidia0", 1, 5)
CONTROL = Device("/dev/null", "/dev/nvidiactl", 1, 3)

LOOK = """
    import fcntl, mmap
    print(*sorted(name for name in os.listdir("/dev") if name.startswith("nvidia")), "end")
    for path in ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/tmp/file"):
        try:
            fd = os.open(path, os.O_RDWR | (os.O_CREAT if path == "/tmp/file" else 0))
        except OSError as error:
            print(path, errno.errorcode[error.errno])
            continue
        print(path, "open", outcome(fcntl.ioctl, fd, 0x4601))
    fd = os.open("/dev/nvidia0", os.O_RDWR) if os.path.exists("/dev/nvidia0") else -1
    executable = mmap.PROT_READ | mmap.PROT_EXEC
    print(outcome(lambda: mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, executable)) if fd != -1 else "none")
    print(outcome(os.unlink, "/dev/nvidia0"), outcome(os.chmod, "/dev/nvidia0", 0o600))
"""


@pytest.mark.req("E7")
def test_a_jail_sees_the_granted_nodes_and_no_other(rig: Rig) -> None:
    listed, first, second, control, file, mapped, touched = rig.python(
        LOOK, role="coder", devices=(ZERO, CONTROL)
    ).lines
    assert listed == "nvidia0 nvidiactl end"
    assert first == "/dev/nvidia0 open ENOTTY", "the driver is asked: Landlock lets it through"
    assert second == "/dev/nvidia1 ENOENT"
    assert control == "/dev/nvidiactl open ENOTTY"
    assert file == "/tmp/file open ENOTTY"
    assert mapped in {"EPERM", "EACCES"}, "a granted node is no way round noexec"
    assert set(touched.split()) <= {"EPERM", "EACCES", "EROFS", "EBUSY"}


def test_without_a_grant_there_is_none(rig: Rig) -> None:
    listed, first, *_ = rig.python(LOOK, role="coder").lines
    assert (listed, first) == ("end", "/dev/nvidia0 ENOENT")


def test_a_jail_started_in_advance_is_not_taken_for_one_with_a_device(rig: Rig) -> None:
    """What is attached to a spare is nodev: its node could not be opened."""
    keep_spare(rig.identity)
    try:
        for _ in range(2):
            assert rig.python(LOOK, role="tester", devices=(ZERO,)).lines[1] == "/dev/nvidia0 open ENOTTY"
    finally:
        drop_spare()


def test_pid_1_starts_nothing_where_a_node_is_not_what_was_granted(rig: Rig) -> None:
    other = Device("/dev/zero", "/dev/nvidia0", 1, 3)
    with pytest.raises(HostError, match=r"/dev/nvidia0 is not the character device 1:3"):
        rig.python("pass", role="coder", devices=(other,))


def test_a_link_in_a_nodes_place_is_refused(rig: Rig, tmp_path: Path) -> None:
    link = tmp_path / "nvidia0"
    link.symlink_to("/dev/zero")
    device = Device(str(link), "/dev/nvidia0", 1, 5)
    assert "no character device" in device.problem()
    assert ZERO.problem() == "", "the control: what it leads to is one"
    if os.getuid() == 0:  # an ordinary user's bubblewrap follows it to a device that PID 1 then compares
        with pytest.raises(HostError, match="symbolic link"):
            rig.python("pass", role="coder", devices=(device,))


def test_only_who_executes_what_the_agent_made_may_have_one() -> None:
    for role, device in (("scanner", ZERO), ("coder", Device("/dev/zero", "/dev/mem", 1, 5))):
        with pytest.raises(OperatorError, match="a device"):
            JailSpec(role, ("true",), devices=(device,)).check()
    JailSpec("coder", ("true",), devices=(ZERO,)).check()


def _nodes(directory: Path, *made: tuple[str, int, int]) -> Host:
    for name, major, minor in made:
        os.mknod(directory / name, 0o020666, os.makedev(major, minor))
        (directory / name).chmod(0o666)
    return Host(str(directory), majors={"nvidia": 1, "nvidia-uvm": 1})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a device node as a stand-in")
def test_a_host_with_the_nodes_grants_them_with_the_drivers_numbers(tmp_path: Path) -> None:
    host = _nodes(tmp_path, ("nvidia3", 1, 3), ("nvidia5", 1, 5), ("nvidiactl", 1, 255), ("nvidia-uvm", 1, 0))
    grant = host.grant((3,))
    assert [(d.target, d.major, d.minor) for d in grant.devices] == [
        ("/dev/nvidia3", 1, 3),
        ("/dev/nvidiactl", 1, 255),
        ("/dev/nvidia-uvm", 1, 0),
    ], "and not nvidia5"
    assert grant.minors == (3,)
    assert from_json(grant.as_json()) == grant
    assert grant.problems(60_600, ()) == []
    (tmp_path / "nvidia3").chmod(0o660)
    assert "may not open it" in grant.problems(60_600, ())[0]
    assert grant.problems(60_600, (0,)) == [], "its group may"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a device node as a stand-in")
@pytest.mark.parametrize("wrong", ["no uvm", "missing", "link", "file", "block", "other minor", "other major"])
def test_what_is_no_such_node_is_refused(tmp_path: Path, wrong: str) -> None:
    host, node = _nodes(tmp_path, ("nvidiactl", 1, 255), ("nvidia-uvm", 1, 0)), tmp_path / "nvidia3"
    match wrong:
        case "link":
            node.symlink_to("/dev/null")
        case "file":
            node.touch()
        case "block":
            os.mknod(node, 0o060666, os.makedev(1, 3))
        case "other minor":
            os.mknod(node, 0o020666, os.makedev(1, 5))
        case "other major":
            os.mknod(node, 0o020666, os.makedev(5, 3))
        case "no uvm":
            os.mknod(node, 0o020666, os.makedev(1, 3))
            host.grant((3,))  # the control of all of these
            (tmp_path / "nvidia-uvm").unlink()
        case _:
            assert wrong == "missing"
    with pytest.raises(RefusedError, match="nvidia-uvm" if wrong == "no uvm" else "nvidia3") as refused:
        host.grant((3,))
    assert refused.value.expected
    assert refused.value.fix
    assert host.grant(()) == NONE


def test_a_host_without_the_driver_grants_nothing() -> None:
    with pytest.raises(RefusedError, match="no driver nvidia"):
        Host(majors={}).grant((0,))
    assert "mem" in read_majors(), "the control: this kernel says which drivers it has"


def test_a_grant_that_was_altered_is_none() -> None:
    plain = Grant((ZERO,), (0,)).as_json()
    assert from_json(plain) == Grant((ZERO,), (0,))
    assert from_json(None) == NONE
    for altered in ({}, {**plain, "more": 1}, {**plain, "devices": [["/dev/zero"]]}, {**plain, "minors": "0"}):
        with pytest.raises(ValueError, match="no grant"):
            from_json(altered)
