"""The filter decided on paper: a small BPF machine runs it for every number, against the tables it was made from."""

import struct

import pytest

from inbounds.contracts.errors import HostError
from inbounds.sandbox import seccomp
from inbounds.sandbox.syscalls import ALLOWED, INSPECTED, REFUSED

EPERM, ENOSYS = seccomp.refuse(1), seccomp.refuse(38)


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    for _ in range(len(steps)):
        code, yes, no, k = steps[at]
        at += 1
        if code == seccomp.RETURN:
            return int(k)
        if code == seccomp.LOAD_WORD:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == seccomp.AND:
            accumulator &= k
        elif code == seccomp.JUMP:
            at += k
        else:
            holds = {
                seccomp.JUMP_EQUAL: accumulator == k,
                seccomp.JUMP_GREATER_EQUAL: accumulator >= k,
                seccomp.JUMP_SET: bool(accumulator & k),
            }[code]
            at += yes if holds else no
    raise AssertionError("the program did not return")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_number_gets_its_answer(machine: str) -> None:
    column, arch = seccomp.ARCHITECTURES[machine]
    program = seccomp.program(machine)
    expected = {row[column]: seccomp.ALLOW for row in ALLOWED.values()}
    expected |= {row[column]: EPERM for row in REFUSED.values()}
    inspected = {row[column] for row in INSPECTED.values()}
    for number in [*range(1200), 0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFF]:
        if number not in inspected:
            assert decide(program, arch, number) == expected.get(number, ENOSYS), number
    assert decide(program, 0x40000003, 39) == seccomp.KILL_PROCESS
    assert decide(program, seccomp.ARCHITECTURES["aarch64" if column == 0 else "x86_64"][1], 1) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_inspected_calls(machine: str) -> None:
    column, arch = seccomp.ARCHITECTURES[machine]
    program = seccomp.program(machine)

    def answer(name: str, *arguments: int) -> bool:
        number = INSPECTED[name][column]
        assert number is not None
        value = decide(program, arch, number, *arguments)
        assert value in {seccomp.ALLOW, EPERM}
        return value == seccomp.ALLOW

    assert answer("clone", 0x3D0F00)  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert not answer("clone", flag | 17)
    assert answer("socket", 1, 2)
    assert answer("socket", 1, 5 | 0x80000)
    for family in (2, 10):
        assert answer("socket", family, 1 | 0x80800, 0)
        assert answer("socket", family, 1, 6)
        assert answer("socket", family, 2, 17)
        assert not answer("socket", family, 3, 255)
        assert not answer("socket", family, 2, 1)
        assert not answer("socket", family, 1, 132)
    assert answer("socket", 16, 3, 0)
    assert not answer("socket", 16, 3, 12)
    for family in (0, 3, 17, 21, 29, 31, 38, 39, 40, 44, 0xFFFFFFFF):
        assert not answer("socket", family, 1, 0)
    assert answer("ioctl", 0, 0x5401)
    assert not answer("ioctl", 0, 0x5412)
    assert not answer("ioctl", 0, 0xFFFFFFFF00005412)  # the kernel reads 32 bits (CVE-2019-10063)
    assert not answer("ioctl", 0, 0x541C)
    assert answer("personality", 0xFFFFFFFF)
    assert not answer("personality", 0x0400000)
    assert not answer("ioctl", 0, 0x5423)  # a line discipline's module is loaded by it
    assert answer("socketpair", 1, 1)
    for family in (2, 16, 17, 30, 38, 40):  # the kernel makes the sockets before it says that they have no pairs
        assert not answer("socketpair", family, 1)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_nobody_sets_the_priorities_and_limits_of_pid_1(machine: str) -> None:
    column, arch = seccomp.ARCHITECTURES[machine]
    program = seccomp.program(machine)

    def answer(name: str, *arguments: int) -> int:
        number = INSPECTED[name][column]
        assert number is not None
        return decide(program, arch, number, *arguments)

    for name in ("sched_setscheduler", "sched_setaffinity", "sched_setattr", "sched_setparam"):
        assert answer(name, 1) == answer(name, 1 | 7 << 32) == EPERM
        assert answer(name, 0) == answer(name, 77) == seccomp.ALLOW
    for name, process, group, user in (("setpriority", 0, 1, 2), ("ioprio_set", 1, 2, 3)):
        assert answer(name, process, 1, 19) == answer(name, user, 0, 19) == EPERM
        assert answer(name, process, 0, 19) == answer(name, process, 9, 1) == seccomp.ALLOW
        assert answer(name, group, 0, 19) == seccomp.ALLOW
    files, core, pointer = 7, 4, 0x7F00_0000_0000
    assert answer("prlimit64", 1, files, pointer) == EPERM
    assert answer("prlimit64", 0, files, pointer) == answer("prlimit64", 0, core, 0, pointer) == seccomp.ALLOW
    # said to be done, and not done: refused without an error number
    done = seccomp.ERRNO
    assert answer("prlimit64", 0, core, pointer) == answer("prlimit64", 0, core, 8) == done
    assert answer("prlimit64", 0, core, pointer, pointer) == EPERM
    assert answer("setrlimit", core, pointer) == done
    assert answer("setrlimit", files, pointer) == seccomp.ALLOW


def test_tables_are_disjoint_and_setup_gives_only_what_it_says() -> None:
    names = [*ALLOWED, *REFUSED, *INSPECTED]
    assert len(set(names)) == len(names)
    for column in (0, 1):
        numbers = [row[column] for table in (ALLOWED, REFUSED, INSPECTED) for row in table.values()]
        present = [n for n in numbers if n is not None]
        assert len(set(present)) == len(present)
    strict, setup = seccomp.program("x86_64"), seccomp.program("x86_64", seccomp.SETUP_EXTRA)
    arch = seccomp.ARCHITECTURES["x86_64"][1]
    different = {n for n in range(1200) if decide(strict, arch, n) != decide(setup, arch, n)}
    assert different == {REFUSED[name][0] for name in seccomp.SETUP_EXTRA if name in REFUSED}
    limit = INSPECTED["setrlimit"][0]
    assert limit is not None
    assert (decide(strict, arch, limit, 4), decide(setup, arch, limit, 4)) == (seccomp.ERRNO, seccomp.ALLOW)


def test_an_unknown_architecture_is_the_hosts_lack() -> None:
    with pytest.raises(HostError, match="riscv64"):
        seccomp.program("riscv64")
