"""Memory that is in no process's resident set counts against a jail's limit all the same: real jails, real kernels."""

import os

import pytest
from jailrig import Ended, Rig, limits

from inbounds.sandbox import memory

MIB = 1 << 20
LIMIT = 200 * MIB

# What each holds is told in MiB; then it stays for PID 1's next looks.
HOARDS = {
    "private": "held = [bytearray(b'x' * (10 << 20)) for _ in range(n // 10)]",
    "page tables": """
import mmap
length = n << 29  # 4 KiB of page tables for each 2 MiB
area = libc.mmap
area.restype, area.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
start = area(None, length, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), 15)  # MADV_NOHUGEPAGE
total = sum(ctypes.string_at(start + at, 1)[0] for at in range(0, length, 2 << 20))
""",
    "sockets": """
import socket
held, sent, part = [], 0, bytes(1 << 15)
while sent < n << 20:
    held.append(socket.socketpair())
    for end in held[-1]:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        while True:
            try:
                sent += end.send(part)
            except BlockingIOError:
                break
""",
    "shared, let go": """
import mmap
area = mmap.mmap(-1, n << 20)
for at in range(0, n << 20, 1 << 20):
    area[at:at + (1 << 20)] = b'x' * (1 << 20)
    area.madvise(mmap.MADV_DONTNEED)
""",
    "shared, of a child that has ended": """
import mmap
area = mmap.mmap(-1, n << 20)
if not os.fork():
    for at in range(0, n << 20, 1 << 20):
        area[at:at + (1 << 20)] = b'x' * (1 << 20)
    os._exit(0)
os.wait()
""",
    "shared, of one who may not be asked": """
import mmap
libc.prctl(4, 0, 0, 0, 0)
area = mmap.mmap(-1, n << 20)
for at in range(0, n << 20, 1 << 20):
    area[at:at + (1 << 20)] = b'x' * (1 << 20)
    area.madvise(mmap.MADV_DONTNEED)
""",
}


def _hoard(rig: Rig, way: str, mib: int) -> Ended:
    code = f"n = {mib}\n{HOARDS[way]}\nimport time\ntime.sleep(6)\nprint('had it', flush=True)"
    return rig.python(code, limits=limits(memory_bytes=LIMIT, open_files=4096))


@pytest.mark.req("E7")
@pytest.mark.parametrize("way", HOARDS)
def test_what_is_held_beyond_the_limit_ends_the_jail(rig: Rig, way: str) -> None:
    ended = _hoard(rig, way, 150 if way == "private" else 280)
    if way == "private":  # control: below it, it goes on
        assert ended.lines == ["had it"]
        ended = rig.python(
            f"n = 150\n{HOARDS[way]}\nos.fork()\nimport time\ntime.sleep(9)",  # shared pages count each time
            limits=limits(memory_bytes=LIMIT),
        )
    assert ended.end.reason == "memory", (ended.end, ended.stdout, ended.stderr)


@pytest.mark.parametrize("way", [way for way in HOARDS if way != "private"])
def test_control_below_the_limit_it_goes_on(rig: Rig, way: str) -> None:
    assert _hoard(rig, way, 60).lines == ["had it"]


def test_a_sockets_buffers_cannot_be_made_larger_and_nobody_breaks_on_it(rig: Rig) -> None:
    seen = rig.python("""
    import socket
    one = socket.socket(socket.AF_UNIX)
    sizes = [one.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33):
        one.setsockopt(socket.SOL_SOCKET, name, 1 << 22)
    print(sizes == [one.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)])
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    print(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    tcp = socket.socket()
    tcp.setsockopt(socket.IPPROTO_TCP, 7, 3)  # TCP_SYNCNT: another level's number of the same value
    print(tcp.getsockopt(socket.IPPROTO_TCP, 7))
    """)
    assert seen.lines == ["True", "1", "3"]


def test_tcps_buffers_are_bounded_by_what_the_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"sockets: used 80\nTCP: inuse 2 orphan 0 tw 0 alloc 9 mem %d\nUDP: inuse 0 mem 0\n"
    told = {"pages": 100}
    real = memory._read
    monkeypatch.setattr(
        memory, "_read", lambda path, most: text % told["pages"] if "sockstat" in path else real(path, most)
    )
    one = memory.Memory(1 << 30, 1000)
    assert one._sockets() == 16_000 + 100 * os.sysconf("SC_PAGE_SIZE")
    told["pages"] = 1 << 20
    assert one._sockets() == 16_000 + 2 * (10 << 20)
