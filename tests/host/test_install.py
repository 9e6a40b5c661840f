"""Install and uninstall as root, for real but at places of the test's own; what they refuse; what is left: nothing."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostrig import MIB, SECONDS, Client, gone, root_or_skip

from inbounds.host import install as installing
from inbounds.host import protocol, slots
from inbounds.host.install import CannotError, Places, install, status, uninstall
from inbounds.host.protocol import Op, Phase
from inbounds.host.slots import Paths


@pytest.fixture
def places() -> Iterator[Places]:
    """Places whose parents are root's alone, as those of the product are; a group of a name of its own."""
    root_or_skip()
    top = Path(tempfile.mkdtemp(prefix="inbounds-install-test-", dir="/usr/local/lib"))
    top.chmod(0o755)
    made = Places(
        paths=Paths(f"{top}/state", f"{top}/run"),
        library=f"{top}/library",
        units=str(top),
        group=f"inbounds-t{secrets.token_hex(4)}",
        systemd=False,
    )
    try:
        yield made
    finally:
        uninstall(made, force=True)
        shutil.rmtree(top)


def _host() -> dict[str, object]:
    """All that an installation could leave on this host, but for what a test of somebody else's does meanwhile."""
    with open("/proc/self/mountinfo") as table:
        mounts = [line for line in table if "inbounds-install-test" in line]
    accounts = [line for name in ("/etc/passwd", "/etc/group") for line in Path(name).read_text().splitlines()]
    return {
        "mounts": mounts,
        "accounts": [line for line in accounts if "inbounds-t" in line or "inbounds-install-test" in line],
        "processes": [line for line in _commands() if "inbounds-install-test" in line],
        "libraries": [name for name in os.listdir("/usr/local/lib") if name.startswith("inbounds-host")],
        "units": os.path.exists(f"/etc/systemd/system/{installing.UNIT_NAME}"),
        "loops": [name for name in _backing_files() if "inbounds-install-test" in name],
    }


def _commands() -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def _backing_files() -> list[str]:
    found = []
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError):
            found.append(Path(f"/sys/block/{name}/loop/backing_file").read_text())
    return found


def _client(places: Places) -> Client:
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(SECONDS)
    made.connect(places.paths.socket)
    return Client(made)


def _settled(before: dict[str, object]) -> bool:
    """Whether the host is as before; a loop device goes a moment after its last user."""
    until = time.monotonic() + SECONDS
    while _host() != before and time.monotonic() < until:
        time.sleep(0.1)
    return _host() == before


def test_installed_twice_and_uninstalled_twice_the_host_is_as_before(places: Places) -> None:
    before = _host()
    for _ in range(2):
        first = install(places, ["root"])
        pid = installing.running(places)
        again = install(places, ["root"])
        assert first["answers"]
        assert again == first
        assert installing.running(places) == pid  # nothing was restarted
        assert first["problems"] == []
        assert first["operators"] == ["root"]
        client = _client(places)
        assert client.open().errno == 0
        argument = client.run("/usr/bin/id", "-u")
        assert argument.strip() == str(protocol.uid_of(client.slot))
        assert client.ask(Op.DISCARD).errno == 0
        client.close()
        uninstall(places)
        assert _settled(before), (_host(), before)
        assert gone(client.slot, places.paths)
        assert uninstall(places) == {"slots": 0, "group": False}


def test_only_the_copy_runs_and_only_root_can_change_it(places: Places) -> None:
    install(places, [])
    command = Path(f"/proc/{installing.running(places)}/cmdline").read_bytes().split(b"\0")
    assert command[0].startswith(b"/usr/bin/python3")
    assert command[1:5] == [b"-I", b"-S", b"-B", places.library.encode()]
    maps = Path(f"/proc/{installing.running(places)}/maps").read_text()
    assert str(Path(sys.prefix)) not in maps
    for directory, _, names in os.walk(places.library):
        for name in (".", *names):
            about = os.lstat(f"{directory}/{name}")
            assert about.st_uid == 0
            assert not about.st_mode & 0o022
    copied = {str(path.relative_to(places.library)) for path in Path(places.library).rglob("*.py")}
    here = {f"inbounds/host/{path.name}" for path in Path(installing.__file__).parent.glob("*.py")}
    assert copied == here | {"__main__.py", "inbounds/__init__.py"}


def test_the_copy_needs_nothing_but_itself_and_the_standard_library(places: Places) -> None:
    """In an empty root of imports: `-I -S`, and inbounds itself out of reach."""
    install(places, [])
    code = "import sys;sys.path.insert(0,sys.argv[1]);import inbounds.host.install,inbounds.host.__main__;"
    code += "print({m.split('.')[1] for m in sys.modules if m.startswith('inbounds.')})"
    told = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-B", "-c", code, places.library],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert told.stdout.strip() == "{'host'}"


def test_another_version_replaces_the_copy_and_is_said(places: Places) -> None:
    install(places, [])
    pid = installing.running(places)
    changed = Path(places.library) / "inbounds" / "host" / "protocol.py"
    changed.write_text(changed.read_text() + "# another\n")
    facts = status(places)
    assert facts["installed"]
    assert not facts["same_version"]
    assert facts["problems"]
    client = _client(places)
    assert client.open().errno == 0
    client.jail("/bin/sleep", "600")  # what an agent was in is kept
    with pytest.raises(CannotError, match="in use by runs"):
        install(places, [])
    assert client.ask(Op.STATE).numbers["phase"] == Phase.OPEN  # and nothing has happened to it
    assert install(places, [], force=True)["same_version"]
    assert installing.running(places) not in (0, pid)
    back = _client(places)
    assert back.ask(Op.ATTACH, client.slot).errno == 0  # what it wrote is there still
    client.close()
    back.close()


def test_uninstall_destroys_nothing_unasked(places: Places) -> None:
    before = _host()
    install(places, [])
    client = _client(places)
    assert client.open().errno == 0
    with pytest.raises(CannotError, match="1 slots are in use"):
        uninstall(places)
    client.jail("/bin/sleep", "600")
    assert client.ask(Op.STATE).numbers["phase"] == Phase.OPEN
    assert client.ask(Op.DETACH).errno == 0
    with pytest.raises(CannotError, match="1 hold what runs wrote"):
        uninstall(places)
    assert status(places)["answers"]
    assert client.ask(Op.ATTACH).errno == 0
    client.jail("/bin/sleep", "600")
    uninstall(places, force=True)
    client.close()
    assert gone(client.slot, places.paths)
    assert _settled({**before, "accounts": []})


def test_uninstall_behind_a_service_that_was_killed(places: Places) -> None:
    install(places, [])
    client = _client(places)
    assert client.open().errno == 0
    client.jail("/bin/sleep", "600")
    os.kill(installing.running(places), 9)
    client.close()
    until = time.monotonic() + SECONDS
    while installing.running(places):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert os.path.ismount(places.paths.run)
    assert "answer" in status(places)["problems"][0]
    again = install(places, [])  # which starts it: the slot is adopted
    assert again["slots"][0]["phase"] == "kept"
    os.kill(installing.running(places), 9)
    uninstall(places, force=True)
    assert gone(client.slot, places.paths)
    assert not os.path.exists(places.paths.run)


def test_a_place_that_is_not_roots_alone_is_refused(places: Places, tmp_path: Path) -> None:
    top = os.path.dirname(places.library)
    os.chmod(top, 0o775)
    with pytest.raises(CannotError, match="mode 775"):
        install(places, [])
    os.chmod(top, 0o755)
    os.chown(top, 1, 0)
    with pytest.raises(CannotError, match="of user 1"):
        install(places, [])
    os.chown(top, 0, 0)
    link = tmp_path / "link"
    link.symlink_to(top)
    with pytest.raises(CannotError, match="symbolic link"):
        installing.check_parents(f"{link}/library")
    os.mkdir(places.library)
    Path(places.library, "precious").touch()
    with pytest.raises(CannotError, match="not ours"):
        install(places, [])
    assert os.path.exists(f"{places.library}/precious")
    shutil.rmtree(places.library)
    assert not os.path.exists(places.paths.state)  # refused before anything was made
    assert install(places, [])["answers"]  # the control


def test_an_interpreter_that_somebody_else_could_change_is_refused(tmp_path: Path) -> None:
    root_or_skip()
    assert installing.interpreter().startswith("/usr/bin/python3")
    own = tmp_path / "python3"
    shutil.copy("/usr/bin/env", own)
    os.chown(own, 1, 1)
    with pytest.raises(CannotError, match="of user 1"):
        installing.check_custody(str(own))
    os.chown(own, 0, 0)
    own.chmod(0o777)
    with pytest.raises(CannotError, match="mode 777"):
        installing.check_custody(str(own))


def test_an_operator_without_an_account_is_refused_before_anything_is_made(places: Places) -> None:
    with pytest.raises(CannotError, match="no user"):
        install(places, ["inbounds-nobody-such"])
    assert not os.path.exists(places.library)


# Why each stands in the unit ...
NEEDED = {
    "Delegate": "yes",  # else systemd undoes the slots' groups, and limits of version 2 cannot be handed down
    "KillMode": "mixed",  # sessions end their slots in order when the first process is told to; what is left is killed
    "Restart": "always",  # whatever ends it: slots that were mounted are unmounted at the next start
    "OOMPolicy": "continue",  # a jail at its ceiling is no reason to stop the service
    "TasksMax": "infinity",  # each slot has its own ceiling; the usual one would be shared by all
    "NoNewPrivileges": "yes",
    "LimitCORE": "0",
}
# ... and why each of these must not. The first kind makes a mount namespace, where the operators would not see the views.
MOUNT_NAMESPACE = (
    "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadOnlyPaths", "ReadWritePaths",
    "InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths",
    "RootDirectory", "RootImage", "MountAPIVFS", "ProtectProc", "ProcSubset", "ProtectKernelTunables",
    "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectHostname", "MountFlags",
    "RuntimeDirectory", "StateDirectory", "DynamicUser", "PrivateUsers", "PrivateIPC",
)  # fmt: skip
INHERITED = (  # jails would have them too: no namespaces, no WebAssembly, no loopback for their listeners
    "SystemCallFilter", "RestrictNamespaces", "MemoryDenyWriteExecute", "RestrictRealtime", "LockPersonality",
    "PrivateNetwork", "IPAddressDeny", "LimitNPROC", "LimitAS", "LimitFSIZE", "CPUQuota", "MemoryMax",
)  # fmt: skip
OTHERS_RIGHTS = ("User", "Group", "AmbientCapabilities", "ExecStartPre", "EnvironmentFile", "PassEnvironment")


def _directives(unit: str) -> dict[str, str]:
    lines = [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def _unit() -> str:
    from inbounds.host.service import KEPT_CAPABILITIES

    words = {"python": "/usr/bin/python3", "library": "/usr/local/lib", "group": "root", "mark": "test", "stop": 150}
    names = " ".join(f"CAP_{name.upper()}" for name in KEPT_CAPABILITIES)
    return installing.UNIT.format(**words, state="/var/lib/x", run="/run/x", capabilities=names)


def test_the_unit_has_what_the_process_needs_and_nothing_that_hides_its_mounts() -> None:
    from inbounds.host.service import END_SECONDS

    said = _directives(_unit())
    assert {name: said.get(name) for name in NEEDED} == NEEDED
    assert [name for name in (*MOUNT_NAMESPACE, *INHERITED, *OTHERS_RIGHTS) if name in said] == []
    assert int(said["TimeoutStopSec"]) > END_SECONDS, "systemd must not kill while sessions end in order"
    # the service's own sockets, the filter's, the loop's probes, and what jails may open by their own filter
    assert said["RestrictAddressFamilies"].split() == ["AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"]
    assert "-I -S -B" in said["ExecStart"], "nothing of root's environment, site or byte code"


def test_the_capabilities_have_the_kernels_numbers() -> None:
    from inbounds.host.service import KEPT_CAPABILITIES

    names = Path("/usr/include/linux/capability.h")
    if not names.exists():
        pytest.skip("no header of the kernel's here to compare the capabilities' numbers with")
    text = names.read_text()
    for name, number in KEPT_CAPABILITIES.items():
        assert ["#define", f"CAP_{name.upper()}", str(number)] in [line.split()[:3] for line in text.splitlines()], name


def test_systemds_own_check_of_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here, which alone reads units as systemd does")

    def told(unit: str) -> str:
        (tmp_path / installing.UNIT_NAME).write_text(unit)
        words = ["systemd-analyze", "verify", str(tmp_path / installing.UNIT_NAME)]
        return subprocess.run(words, capture_output=True, text=True, check=False).stderr

    assert installing.UNIT_NAME not in told(_unit())
    wrong = told(_unit().replace("Delegate=yes", "Delegated=yes"))  # the control
    if installing.UNIT_NAME not in wrong:
        pytest.skip(f"systemd-analyze finds nothing wrong with an unknown directive here: {wrong.strip()[:200]}")


def test_the_command_refuses_an_ordinary_user_with_the_command_for_root() -> None:
    code = (
        "from inbounds.cli.main import main\nimport inbounds.cli.host, inbounds.contracts.errors, inbounds.console.plain\n"
        "import os,sys\nsys.argv[0]='/opt/it/bin/inbounds'\n"
        "if os.getuid()==0: os.setresgid(64242,64242,64242); os.setresuid(64242,64242,64242)\n"
        "main(sys.argv[1:])\n"
    )
    for verb, wanted in (
        (["install", "--operator", "some body"], "sudo /opt/it/bin/inbounds host install --operator 'some body'"),
        (["uninstall"], "sudo /opt/it/bin/inbounds host uninstall"),
    ):
        told = subprocess.run(
            [sys.executable, "-c", code, "host", *verb, "--json"], capture_output=True, text=True, check=False, cwd="/"
        )
        assert told.returncode == 100, told
        assert json.loads(told.stdout)["error"]["fix"] == wanted


def test_status_of_a_host_without_it(places: Places) -> None:
    facts = status(places)
    assert (facts["installed"], facts["answers"], facts["problems"]) == (False, False, ["not installed"])
    json.dumps(facts)


def test_a_damaged_record_goes_with_the_rest(places: Places) -> None:
    install(places, [])
    client = _client(places)
    assert client.open(bytes=16 * MIB).errno == 0
    assert client.ask(Op.DETACH).errno == 0
    assert slots.records(places.paths)[client.slot].phase == Phase.KEPT
    client.close()
    Path(places.paths.of(client.slot), "state").write_bytes(b"damaged")
    uninstall(places, force=True)
    assert gone(client.slot, places.paths)
