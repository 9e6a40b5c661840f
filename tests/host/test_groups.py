"""A slot's ceilings, freeze and kill on the real kernel: bombs, forks, and a thousand processes that resist."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from groups_rig import LOAD, MIB, alive, ended, group, needs_root, start, uid_of, until

from inbounds.host import groups
from inbounds.host.groups import Group

pytestmark = [needs_root, pytest.mark.alone]  # a thousand processes, and bombs: others would wait for a turn

SLOT = 71
UID = uid_of(SLOT)
OWN = {f"inbounds-slot-{SLOT}", f"inbounds-probe-{os.getpid()}"}
EAT = "import sys; data = bytearray(int(sys.argv[1])); data[::4096] = b'x' * len(data[::4096]); print(len(data))"
COUNT = "import os\nfd = os.open('n', os.O_WRONLY)\nn = 0\nwhile True:\n    n += 1\n    os.pwrite(fd, b'%d' % n, 0)"
BUSY = "import time; t = time.monotonic()\nwhile time.monotonic() < t + 2: pass\nprint(time.process_time())"


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = set(Path("/sys/fs/cgroup").glob("**/inbounds-*"))
    assert Group.find(SLOT) is None, "a former test left the group of its slot"
    yield
    left = {p for p in Path("/sys/fs/cgroup").glob("**/inbounds-*") if p.name in OWN}
    assert not left - before
    assert until(lambda: not alive(UID))


def _supported(*kinds: str) -> None:
    told = groups.mechanisms()
    if lacks := [f"{kind}: {told[kind]}" for kind in kinds if told[kind] != groups.ENFORCED]:
        pytest.skip(f"this host does not have it: {lacks}")


def test_what_is_claimed_was_tried_and_is_in_force() -> None:
    told = groups.mechanisms()
    assert set(told) == {"memory", "swap", "processes", "cpu", "io", "freeze", "kill"}
    assert all(said == "enforced" or said.startswith("absent: ") for said in told.values())
    with group(SLOT, memory=64 * MIB, processes=20, cpu=150, io=3 * MIB) as made:
        asked = {"memory": 64 * MIB, "swap": 0, "processes": 20, "cpu": 150, "io": 3 * MIB}
        assert made.limits() == {kind: value for kind, value in asked.items() if told[kind] == "enforced"}
        again = Group.find(SLOT)
        assert again is not None
        assert (again.limits(), again.places, again.unified) == (made.limits(), made.places, made.unified)
        assert not list(Path("/sys/fs/cgroup/freezer").glob("inbounds*"))


def test_a_group_is_made_whole_or_not_at_all() -> None:
    _supported("cpu")
    with pytest.raises(OSError, match="cpu"):
        Group.make(SLOT, memory=64 * MIB, swap=0, processes=20, cpu_percent=1 << 59)
    assert Group.find(SLOT) is None
    for wrong in ({"memory": 0}, {"processes": 0}, {"cpu_percent": 0}, {"swap": -1}, {"memory": 1 << 62}):
        with pytest.raises(ValueError, match="is possible"):
            Group.make(SLOT, **{"memory": MIB, "swap": 0, "processes": 1, "cpu_percent": 1, **wrong})
    with group(SLOT) as made:
        with pytest.raises(FileExistsError):
            Group.make(SLOT, memory=64 * MIB, swap=0, processes=20, cpu_percent=100)
        assert made.limits()["processes"] == 1200, "the failed second one changed the first"
    for number in (-1, 80):
        with pytest.raises(ValueError, match="0 to 79"):
            Group.find(number)


@pytest.mark.req("F7", "E7")
def test_a_memory_bomb_dies_within_its_group_and_nobody_else_does() -> None:
    _supported("memory", "swap")
    with group(SLOT, memory=96 * MIB) as made, ended(start(made, "import time; time.sleep(99)", uid=UID)) as other:
        with ended(start(None, EAT, str(400 * MIB), uid=UID)) as free:
            assert free.communicate(timeout=60)[0].strip() == str(400 * MIB).encode(), "the control, outside"
        with ended(start(made, EAT, str(30 * MIB), uid=UID)) as small:
            assert small.wait(60) == 0
        with ended(start(made, EAT, str(400 * MIB), uid=UID)) as bomb:
            assert bomb.wait(60) == -signal.SIGKILL
        assert other.poll() is None, "a small neighbour in the same group was killed"
        assert made.limits()["swap"] == 0


@pytest.mark.req("F7", "E7")
def test_a_fork_bomb_stops_at_the_ceiling() -> None:
    _supported("processes")
    with group(SLOT, processes=60) as made, ended(start(made, LOAD, "1", "20", uid=UID)):
        assert until(lambda: made.count() >= 55)
        time.sleep(0.3)
        assert made.count() <= 60
        assert len(alive(UID)) <= 60
    code = "import os\nfor n in range(200):\n    if not os.fork(): os._exit(0)\nprint(n)"
    with ended(start(None, code, uid=UID)) as free:
        assert free.communicate(timeout=60)[0].strip() == b"199", "the control: outside nobody counts"


@pytest.mark.req("F7", "E7")
def test_the_processor_quota_holds_for_all_of_it_together() -> None:
    _supported("cpu")
    with group(SLOT, cpu=10) as made:
        both = [start(made, BUSY, uid=UID) for _ in range(2)]
        limited = sum(float(one.communicate(timeout=120)[0]) for one in both)
    with ended(start(None, BUSY, uid=UID)) as free:
        alone = float(free.communicate(timeout=60)[0])
    assert limited < 0.6, limited  # 2 s at 10 % is 0.2 s, and each is granted a first slice or two
    assert alone > limited, "the control: without the group one gets more than both"


@pytest.mark.req("E9")
def test_what_is_frozen_gets_no_time_and_dies_at_a_kill(tmp_path: Path) -> None:
    _supported("freeze", "kill")
    tmp_path.chmod(0o711)
    file = tmp_path / "n"
    file.write_bytes(b"0")
    os.chown(file, UID, UID)
    with group(SLOT) as made, ended(start(made, COUNT, uid=UID, cwd=tmp_path)) as counter:
        assert until(lambda: int(file.read_bytes()) > 1000), "the control: it counts"
        assert made.freeze(10)
        stood = file.read_bytes()
        time.sleep(0.5)
        assert file.read_bytes() == stood
        counter.send_signal(signal.SIGKILL)
        assert counter.wait(10) == -signal.SIGKILL
        late = os.fork()
        if not late:
            for fd in made.join_fds():
                os.write(fd, b"0")
            os._exit(0)
        time.sleep(0.5)
        assert os.waitpid(late, os.WNOHANG) == (0, 0), "who comes in later is frozen as well"
        assert made.kill() == 0
        assert os.waitpid(late, 0) == (late, signal.SIGKILL)
        with ended(start(made, "print(1)", uid=UID)) as after:
            assert after.communicate(timeout=60)[0] == b"1\n", "an emptied group can be used again"


@pytest.mark.req("E9", "F7")
@pytest.mark.parametrize("bomb", [0, 1, 2], ids=["a thousand", "and a fork bomb", "and one that moves on"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "running"])
def test_no_one_of_a_thousand_survives(bomb: int, frozen: bool) -> None:
    _supported("freeze", "kill", "processes")
    with group(SLOT, processes=1100) as made, ended(start(made, LOAD, str(bomb), "1000", uid=UID)):
        assert until(lambda: made.count() >= 1000)
        if frozen:
            assert made.freeze(10)
            before = set(alive(UID))
            time.sleep(0.1)
            after = set(alive(UID))
            assert not after - before, "somebody was born in a frozen group"
            assert len(after) >= 1000, "somebody died of being frozen"
            assert len(before) >= 1000
        assert made.kill() == 0
        assert made.count() == 0
        assert until(lambda: not alive(UID)), (
            "who has let go of all is still on its way to state Z; the load never ends"
        )


def test_who_is_not_in_the_group_is_found_by_his_user() -> None:
    with group(SLOT) as made, ended(start(None, LOAD, "0", "10", uid=UID)) as outside:
        assert until(lambda: len(alive(UID)) >= 11)
        with ended(start(None, "import time; time.sleep(99)", uid=UID + 1)) as foreign:
            assert made.kill() == 0
            assert outside.wait(10) == -signal.SIGKILL
            assert foreign.poll() is None, "another slot's user was hit"


def test_one_whose_first_thread_has_ended_lives_still() -> None:
    """It looks like a process that has ended: state Z, no program, no memory."""
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60}.get(__import__('platform').machine(), 93), 0)"
    )
    with group(SLOT) as made, ended(start(None, code, uid=UID)) as half:
        assert until(lambda: "\nState:\tZ" in Path(f"/proc/{half.pid}/status").read_text())
        assert half.poll() is None
        assert made.kill(0) + made.kill() == 1, "counted while it lives, and then killed"
        assert half.wait(10) == -signal.SIGKILL


def test_without_version_two_a_bomb_is_still_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of version 1 alone: one by one, and nothing may fork meanwhile."""
    unified, places = groups._hierarchies()
    if not any(version == 1 for version, _ in places.values()):
        pytest.skip("every controller is version 2's here")
    monkeypatch.setattr(groups, "_hierarchies", lambda: ("", places))
    assert groups.mechanisms()["freeze"] == "absent: no version 2 hierarchy is mounted"
    with group(SLOT, processes=150) as made, ended(start(made, LOAD, "1", "100", uid=UID)) as load:
        assert until(lambda: made.count() >= 140)
        assert not made.freeze(1)
        assert made.kill() == 0
        assert load.wait(10) == -signal.SIGKILL
        assert made.limits()["processes"] == 150, "the ceiling came back"
    assert unified == "" or not Path(unified, f"inbounds-slot-{SLOT}").exists()


def test_a_kill_says_who_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whom nobody may kill: the count is not 0, the group stays as it was, nobody waits for ever."""
    with group(SLOT) as made, ended(start(None, "import time; time.sleep(99)", uid=UID)) as left:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
            assert until(lambda: alive(UID) == [left.pid])
            assert made.kill(0.3) == 1
        assert made.kill() == 0


@pytest.mark.req("F7")
def test_the_disk_ceiling_slows_direct_writes(tmp_path: Path) -> None:
    _supported("io")
    image, place = tmp_path / "image", tmp_path / "m"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    code = (
        "import mmap, os, time; fd = os.open('f', os.O_CREAT | os.O_WRONLY | os.O_DIRECT)\n"
        "page = mmap.mmap(-1, 1 << 20); t = time.monotonic()\nfor _ in range(6): os.write(fd, page)\n"
        "print(time.monotonic() - t)"
    )
    try:
        os.chown(place, UID, UID)
        device, took = os.stat(place).st_dev, []
        for rate in (0, 2 * MIB):
            with group(SLOT) as made:
                if rate:
                    made.throttle(f"{os.major(device)}:{os.minor(device)}", rate)
                    assert made.limits()["io"] == rate
                with ended(start(made, code, uid=UID, cwd=place)) as writer:
                    took.append(float(writer.communicate(timeout=120)[0]))
        assert took[1] > 1.5, took  # 6 MiB at 2 MiB/s, of which the kernel lets the first slice pass
        assert took[1] > took[0], took
    finally:
        subprocess.run(["umount", place], check=True)
