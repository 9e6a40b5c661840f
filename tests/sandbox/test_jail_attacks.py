"""Attacks from inside a real jail, each with the control that the same attempt succeeds outside it."""

import os
import platform
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from jailrig import PRELUDE, Rig, limits

from inbounds.contracts.errors import HostError
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.spec import Bind, Listener

X86 = platform.machine() == "x86_64"


@pytest.mark.req("C3", "B6")
@pytest.mark.without("landlock")
def test_writing_works_only_where_declared(rig: Rig) -> None:
    work, shown = rig.directory("work"), rig.directory("shown")
    code = """
        for path in ["/x", "/usr/x", "/etc/x", "/dev/x", "/opt/x", "/run/inbounds/unlisted/x", "/run/x", "/var/x",
                     "/work/shown/x", "/proc/sys/kernel/hostname", "/proc/self/comm", "/etc/passwd"]:
            print(outcome(os.open, path, os.O_CREAT | os.O_WRONLY, 0o600))
        for path in ["/work/x", os.environ["HOME"] + "/x", "/tmp/x", "/dev/shm/x"]:
            print(outcome(os.open, path, os.O_CREAT | os.O_WRONLY, 0o600))
    """
    binds = (Bind(str(work), "/work", writable=True), Bind(str(shown), "/work/shown"))
    lines = rig.python(code, binds=binds).lines
    assert set(lines[:12]) <= {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert lines[12:] == ["done"] * 4
    assert (work / "x").exists()
    assert not (shown / "x").exists()


@pytest.mark.req("C2", "B6")
def test_nothing_of_the_host_is_readable_but_what_is_shown(rig: Rig) -> None:
    mine, other = rig.directory("billing"), rig.directory("payroll")
    (mine / "own").write_text("own")
    secret = other / "secret"
    secret.write_text("secret")
    assert secret.read_text() == "secret"  # control
    code = """
        for path in sys.argv[1:]:
            print(outcome(os.stat, path))
        print(open("/work/billing/own").read(), os.listdir("/work"), os.listdir("/home"))
    """
    hidden = [str(secret), "/work/payroll", str(rig.scratch), str(Path.home()), "/etc/shadow", "/sys", "/boot", "/mnt"]
    hidden = [path for path in hidden if path != "/" and os.path.exists(path)]
    lines = rig.python(code, *hidden, binds=(Bind(str(mine), "/work/billing"),)).lines
    # parents of the interpreter exist as empty directories: seen, with nothing of the host in them
    assert set(lines[:-1]) <= {"ENOENT", "done"}
    for path, line in zip(hidden, lines[:-1], strict=True):
        assert line == "ENOENT" or jail_python().startswith(path + "/"), path
    assert lines[-1] == "own ['billing'] ['agent']"


@pytest.mark.req("C4", "F6")
@pytest.mark.without("net-namespace")
def test_the_hosts_loopback_and_the_network_are_unreachable(rig: Rig) -> None:
    code = """
        import socket
        def connect(family, address):
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(3)
                s.connect(address)
        port = int(sys.argv[1])
        print(outcome(connect, socket.AF_INET, ("127.0.0.1", port)))
        print(outcome(connect, socket.AF_UNIX, "\\0" + sys.argv[2]))
        print(outcome(connect, socket.AF_INET, ("1.1.1.1", 80)))
        print(outcome(connect, socket.AF_INET, ("169.254.169.254", 80)))
        print(outcome(connect, socket.AF_INET6, ("2606:4700:4700::1111", 80)))
        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.sendto(b"x", ("192.0.2.1", 53))
        print(outcome(send))
    """
    name = f"inbounds-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0" + name)
        abstract.listen()
        args = (str(server.getsockname()[1]), name)
        outside = subprocess.run(
            [jail_python(), "-I", "-c", PRELUDE + "\n".join(x[8:] for x in code.splitlines()), *args],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert outside[:2] == ["done", "done"]  # control
        # without Landlock's rule for ports, so that the namespace alone is what refuses
        lines = rig.python(code, *args, local_servers=True).lines
    assert lines[0] == "ECONNREFUSED"
    assert lines[1] in {"ECONNREFUSED", "EPERM"}
    assert set(lines[2:]) <= {"ENETUNREACH", "EACCES"}


def test_landlock_lets_tcp_reach_declared_ports_only(rig: Rig) -> None:
    if rig.run("true").enforcement["landlock_network"] != "enforced":
        pytest.skip("the kernel's Landlock has no TCP rules (ABI 4)")
    code = """
        import socket
        def connect(port):
            with socket.socket() as s:
                s.connect(("127.0.0.1", port))
        def bind():
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
        print(outcome(connect, 8100), outcome(connect, 8101), outcome(bind))
    """
    listeners = (Listener("gateway", "tcp", 8100),)
    assert rig.python(code, listeners=listeners).lines == ["done EACCES EACCES"]
    assert rig.python(code, listeners=listeners, local_servers=True).lines == ["done ECONNREFUSED done"]


SYSCALLS = {
    # name: (x86_64, aarch64, arguments)
    "io_uring_setup": (425, 425, "1, 0"),
    "unshare a user namespace": (272, 97, "0x10000000"),
    "clone into a user namespace": (56, 220, "0x10000011, 0, 0, 0, 0"),
    "setns": (308, 268, "0, 0"),
    "ptrace": (101, 117, "16, 1, 0, 0"),
    "process_vm_readv": (310, 270, "1, 0, 0, 0, 0, 0"),
    "bpf": (321, 280, "0, 0, 0"),
    "keyctl": (250, 219, "0, 0, 0, 0"),
    "add_key": (248, 217, "0, 0, 0, 0"),
    "perf_event_open": (298, 241, "0, 0, 0, 0, 0"),
    "userfaultfd": (323, 282, "0"),
    "mount": (165, 40, "0, 0, 0, 0, 0"),
    "umount2": (166, 39, "0, 0"),
    "mount_setattr": (442, 442, "0, 0, 0, 0, 0"),
    "open_by_handle_at": (304, 265, "0, 0, 0"),
    "kexec_load": (246, 104, "0, 0, 0, 0"),
    "pidfd_getfd": (438, 438, "0, 0, 0"),
    "TIOCSTI": (16, 29, "0, 0x5412, 0"),
    "TIOCSTI with high bits": (16, 29, "0, 0x100005412, 0"),
    "TIOCLINUX": (16, 29, "0, 0x541c, 0"),
    "raw socket": (41, 198, "2, 3, 255"),
    "ping socket": (41, 198, "2, 2, 1"),
    "packet socket": (41, 198, "17, 3, 0"),
    "vsock": (41, 198, "40, 1, 0"),
    "netfilter netlink": (41, 198, "16, 3, 12"),
    "alg socket": (41, 198, "38, 5, 0"),
    "personality read-implies-exec": (135, 92, "0x400000"),
}
ABSENT = {"clone3": (435, 435, "0, 0"), "memfd_create": (319, 279, "0, 0"), "shmget": (29, 194, "0, 4096, 0x3b6")}


@pytest.mark.req("F5")
@pytest.mark.without("seccomp")
def test_forbidden_system_calls_are_refused(rig: Rig) -> None:
    column = 0 if X86 else 1
    code = "\n".join(f"print(call({row[column]}, {row[2]}))" for row in [*SYSCALLS.values(), *ABSENT.values()]) + (
        "\nprint(call(0x40000000 + 39))\nprint(call(1000))" if X86 else "\nprint(call(1000))\nprint(call(1000))"
    )
    lines = rig.python(code).lines
    assert dict(zip(SYSCALLS, lines, strict=False)) == dict.fromkeys(SYSCALLS, "EPERM")
    assert lines[len(SYSCALLS) :] == ["ENOSYS"] * (len(ABSENT) + 2)


@pytest.mark.skipif(not X86, reason="only x86_64 has a 32-bit entry point to try")
def test_a_foreign_system_call_abi_is_death(rig: Rig) -> None:
    code = """
        import mmap
        # mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
        machine = bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3])
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(machine)
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        print("before", flush=True)
        print(function())
    """
    outside = subprocess.run(
        [jail_python(), "-I", "-c", PRELUDE + "\n".join(x[8:] for x in code.splitlines())],
        capture_output=True,
        text=True,
        check=False,
    )
    ended = rig.python(code)
    assert ended.stdout == "before\n"
    assert ended.end.signal == 31, (ended.end, outside)  # SIGSYS


def test_pid_1_cannot_be_read_written_or_signalled(rig: Rig) -> None:
    code = """
        for name in ["mem", "environ", "maps", "fd/3", "root", "cwd"]:
            flags = os.O_RDWR if name == "mem" else os.O_RDONLY
            print(outcome(os.open, f"/proc/1/{name}", flags))
        print(outcome(os.kill, 1, 9), outcome(os.kill, 1, 15), outcome(os.kill, 1, 2))
        import time
        time.sleep(0.3)
        print("alive", os.getuid(), os.getgroups(), sorted(p for p in os.listdir("/proc") if p.isdigit())[0])
        print([outcome(os.setuid, 0), outcome(os.setgid, 0), outcome(os.chroot, "/tmp")])
    """
    ended = rig.python(code)
    assert ended.lines[:5] == ["EACCES"] * 5
    assert ended.lines[-2].startswith("alive 1000 ")
    assert ended.lines[-2].endswith(" 1")
    assert "done" not in ended.lines[-1]
    if ended.enforcement["landlock_scopes"] == "enforced":
        assert ended.lines[6] == "EPERM EPERM EPERM"


@pytest.mark.req("F5")
@pytest.mark.without("noexec")
def test_what_was_written_cannot_be_executed_not_even_by_the_loader(rig: Rig) -> None:
    work = rig.directory("work")
    loader = next((p for p in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1") if os.path.exists(p)), "")
    assert loader, "this system has no glibc"
    code = f"""
        import shutil, subprocess
        for place in ["/work/true", "/tmp/true", os.environ["HOME"] + "/true", "/dev/shm/true"]:
            shutil.copy("/usr/bin/true", place)
            print(outcome(subprocess.run, [place]),
                  subprocess.run([{loader!r}, place], stderr=subprocess.DEVNULL).returncode)
    """
    shutil.copy("/usr/bin/true", work / "control")
    assert subprocess.run([loader, str(work / "control")], check=True).returncode == 0  # control
    lines = rig.python(code, binds=(Bind(str(work), "/work", writable=True),)).lines
    assert lines == ["EACCES 127"] * 4
    allowed = rig.python(code, binds=(Bind(str(work), "/work", writable=True, executable=True),)).lines
    assert allowed[0] == "done 0"
    named = rig.python(code, binds=(Bind(str(work), "/work", writable=True),), executables=("/tmp",)).lines
    assert named[:2] == ["EACCES 127", "done 0"]


def test_no_descriptor_and_no_environment_of_the_host_comes_along(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUNDS_TEST_SECRET", "s3cret")
    secret = rig.scratch / "open"
    secret.write_text("secret")
    fd = os.open(secret, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        code = """
            print([n for n in os.listdir("/proc/self/fd") if int(n) > 2 and os.path.lexists(f"/proc/self/fd/{n}")])
            print(sorted(os.environ), open("/proc/self/environ").read().count("s3cret"))
            print(os.readlink("/proc/self/fd/0"))
        """
        lines = rig.python(code, env={"TOKEN": "t"}).lines
    finally:
        os.close(fd)
    assert lines[0] == "[]"
    assert lines[1] == "['HOME', 'LANG', 'LOGNAME', 'PATH', 'SHELL', 'TMPDIR', 'TOKEN', 'USER'] 0"
    assert lines[2] == "/dev/null"


@pytest.mark.without("rlimits")
def test_a_fork_bomb_ends_at_the_limit(rig: Rig) -> None:
    code = """
        import time
        made, refused = 0, ""
        while not refused and made < 500:
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                made += 1
            except OSError as error:
                refused = errno.errorcode[error.errno]
        print(made, refused)
    """
    ended = rig.python(code, limits=limits(processes=40))
    assert ended.lines == ["39 EAGAIN"]


@pytest.mark.without("rlimits")
def test_one_process_cannot_have_more_memory_than_the_limit(rig: Rig) -> None:
    code = """
        kept = []
        try:
            for _ in range(64):
                kept.append(bytearray(16 << 20))
        except MemoryError:
            pass
        print(len(kept))
    """
    limit = limits(memory_bytes=256 << 20)
    assert 5 < int(rig.python(code, limits=limit).lines[0]) < 16


@pytest.mark.without("memory-poll")
def test_many_processes_together_cannot_either(rig: Rig) -> None:
    code = """
        import mmap, time
        for n in range(8):
            if os.fork() == 0:
                memory = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_SHARED if n % 2 else mmap.MAP_PRIVATE)
                for page in range(0, 60 << 20, 4096):
                    memory[page] = 1
                time.sleep(20)
                os._exit(0)
        time.sleep(5)
    """
    ended = rig.python(code, limits=limits(memory_bytes=200 << 20))
    assert ended.end.reason == "memory", ended
    assert ended.end.ms < 5000


@pytest.mark.parametrize("way", ["name", "first thread"])
def test_no_process_hides_its_memory(rig: Rig, way: str) -> None:
    """PID 1 counts from /proc/PID/status: a name stands there, and nothing of a process whose first thread ended."""
    code = """
        import mmap, threading, time
        def hold(memory):
            time.sleep(0.2)
            for page in range(0, 60 << 20, 4096):
                memory[page] = 1
            time.sleep(20)
            os._exit(0)
        for n, name in enumerate([b"RssAnon: 0", b"RssShmem: 0", bytes([255, 254]), b"RssAnon: 0", b"RssShmem: 0", bytes([255])]):
            if os.fork() == 0:
                memory = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_SHARED if b"Shmem" in name else mmap.MAP_PRIVATE)
                if sys.argv[1] == "name":
                    libc.prctl(15, name, 0, 0, 0)
                    hold(memory)
                threading.Thread(target=hold, args=(memory,)).start()
                libc.syscall(int(sys.argv[2]), 0)
        time.sleep(8)
    """
    ended = rig.python(code, way, "60" if X86 else "93", limits=limits(memory_bytes=200 << 20))
    assert ended.end.reason == "memory", ended


def test_home_and_tmp_are_bounded_in_bytes_and_inodes(rig: Rig) -> None:
    code = """
        def fill(path):
            with open(path, "wb") as file:
                for _ in range(64):
                    file.write(b"x" * (1 << 20))
        for place in [os.environ["HOME"], "/tmp"]:
            print(outcome(fill, place + "/big"))
            os.unlink(place + "/big")
            made = 0
            try:
                for made in range(5000):
                    os.close(os.open(f"{place}/{made}", os.O_CREAT | os.O_WRONLY))
            except OSError as error:
                print(errno.errorcode[error.errno], made < 1000)
    """
    ended = rig.python(code, limits=limits(home_bytes=8 << 20, tmp_bytes=8 << 20, inodes=1000))
    assert ended.lines == ["ENOSPC", "ENOSPC True"] * 2


def test_an_output_flood_costs_the_host_a_bounded_file(rig: Rig) -> None:
    bound = 256 << 10
    before = time.process_time()
    ended = rig.run("sh", "-c", "yes & yes >&2", limits=limits(output_bytes=bound), deadline_ms=1500)
    assert ended.end.reason == "deadline"
    assert len(ended.stdout) == len(ended.stderr) == bound
    assert bound < ended.end.stdout_bytes < 20 << 20
    assert time.process_time() - before < 1


def test_a_directory_replaced_by_a_link_is_not_shown(rig: Rig) -> None:
    secret = rig.directory("secret")
    work = rig.directory("work")
    (work / "shared").symlink_to(secret)
    with pytest.raises(HostError, match="symbolic link"):
        rig.run("true", binds=(Bind(str(work / "shared"), "/work/shared"),))


def test_a_token_stands_in_no_argument_list(rig: Rig) -> None:
    token = "tok-" + os.urandom(12).hex()
    jail = rig.spawn("sleep", "20", env={"ANTHROPIC_API_KEY": token}, files={".codex/config.toml": token.encode()})
    jail.go()
    time.sleep(0.2)
    seen = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            shown = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        seen += b"sleep\x0020" in shown
        assert token.encode() not in shown
    assert seen >= 1


def test_local_daemons_and_the_set_id_bit_give_nothing(rig: Rig) -> None:
    code = """
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        print(status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16), int(status["CapBnd"], 16))
        print(os.path.exists("/var/run/docker.sock"), os.path.exists("/run/dbus"), os.path.exists("/run/user"))
    """
    assert rig.python(code).lines == ["1 2 0 0", "False False False"]


def test_two_jails_do_not_see_each_other(rig: Rig) -> None:
    first = rig.spawn("sleep", "20")
    first.go()
    code = """
        print([p for p in os.listdir("/proc") if p.isdigit() and p not in ("1", str(os.getpid()))])
    """
    threads = [threading.Thread(target=lambda: seen.append(rig.python(code).lines)) for _ in range(3)]
    seen: list[list[str]] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["[]"]] * 3
