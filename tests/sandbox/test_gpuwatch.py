"""The watch over a GPU: real figures out of a real shared library, through the real program, against real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakenvml import NOT_SUPPORTED, OTHER_MINOR, FakeNvml, built

from inbounds.contracts.errors import HostError
from inbounds.sandbox import gpuwatch, nvml
from inbounds.sandbox.gpu import Grant
from inbounds.sandbox.gpuwatch import Ceiling, Finding, GpuWatch, Seen

SECONDS = 30
LOOKS = 4 * nvml.EVERY_MS / 1000
ROOMY = Ceiling(512 << 20, 80, 1)
ME = os.getpid()
NOBODYS = (1 << 22) - 3  # no process of this host has this number


@pytest.fixture(scope="module")
def library() -> Iterator[FakeNvml]:
    with built() as fake:
        yield fake


@pytest.fixture
def fake(library: FakeNvml) -> FakeNvml:
    library.says()
    return library


@pytest.fixture
def watches() -> Iterator[list[GpuWatch]]:
    made: list[GpuWatch] = []
    yield made
    for watch in made:
        watch.stop()


def begin(
    fake: FakeNvml, watches: list[GpuWatch], ceiling: Ceiling = ROOMY, ours: frozenset[int] = frozenset({ME})
) -> GpuWatch:
    watch = GpuWatch.start(fake.grant((0,)), ceiling, lambda: set(ours))
    watches.append(watch)
    return watch


def found(watch: GpuWatch) -> Finding:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if finding := watch.finding():
            assert watch.finding() is None, "it is told once"
            return finding
        time.sleep(0.02)
    raise AssertionError(f"nothing was found in {SECONDS} s")


def quiet(watch: GpuWatch) -> None:
    """Nothing is found for some looks."""
    deadline = time.monotonic() + LOOKS
    while time.monotonic() < deadline:
        assert watch.finding() is None
        time.sleep(0.05)


@pytest.mark.req("E7")
@pytest.mark.parametrize("kind", ["c", "g"])
def test_the_runs_own_processes_are_counted_and_nobody_elses(
    fake: FakeNvml, watches: list[GpuWatch], kind: str
) -> None:
    other = os.getppid()
    watch = begin(fake, watches)
    fake.says(used=9_000, rate=100, processes=((kind, ME, 512, 80), ("c", other, 8_000, 100)))
    quiet(watch)  # the control: at the ceilings, while another process has all the rest
    fake.says(used=9_000, processes=((kind, ME, 513, 0), ("c", other, 8_000, 0)))
    finding = found(watch)
    assert finding == Finding(True, "GPU 0: 513 MiB held by the run's processes, 512 allowed")


@pytest.mark.req("E7")
@pytest.mark.parametrize("how", ["no list", "no figure"])
def test_where_processes_are_not_told_apart_all_of_the_device_counts(
    fake: FakeNvml, watches: list[GpuWatch], how: str
) -> None:
    listed, mine = (NOT_SUPPORTED, ()) if how == "no list" else (0, (("c", ME, -1, 0),))
    fake.says(used=512, listed=listed, processes=mine)
    watch = begin(fake, watches)
    quiet(watch)
    fake.says(used=700, listed=listed, processes=mine)
    finding = found(watch)
    assert finding.exceeded
    assert "700 MiB held by all of its processes together" in finding.words


@pytest.mark.req("E7")
@pytest.mark.parametrize("how", ["by process", "by device"])
def test_utilisation_is_stopped_once_it_has_lasted_too_long(fake: FakeNvml, watches: list[GpuWatch], how: str) -> None:
    def busy(percent: int) -> None:
        if how == "by process":
            fake.says(rate=0, processes=(("c", ME, 1, percent),))
        else:
            fake.says(rate=percent, shares=NOT_SUPPORTED, processes=(("c", ME, 1, 0),))

    busy(80)
    watch = begin(fake, watches, Ceiling(512 << 20, 80, 2))
    quiet(watch)  # the control: at the ceiling, for ever
    busy(81)
    since = time.monotonic()
    finding = found(watch)
    assert time.monotonic() - since > 2 - 2 * nvml.EVERY_MS / 1000, "it may be above for as long as policy says"
    assert finding.exceeded
    assert "above 80 % for more than 2 s, now 81 %" in finding.words


def test_pauses_now_and_then_gain_nothing() -> None:
    """An agent that is idle at each tenth look would never be above for long at a stretch."""
    grant = Grant((), (0,), "none")
    watch = GpuWatch(None, grant, Ceiling(1 << 30, 50, 20), lambda: {1})  # type: ignore[arg-type]  # no program is heard

    def seconds(pattern: tuple[int, ...]) -> int:
        for second in range(200):
            share = pattern[second % len(pattern)]
            if watch._judge(Seen(0, 0, share, None), 1_000.0 + second):
                return second
        return 0

    assert 20 < seconds((100,) * 9 + (0,)) < 40
    watch._devices[0] = gpuwatch._Device()
    assert seconds((100, 0)) == 0, "the control: half of the time is what was granted"


@pytest.mark.req("E7")
def test_a_process_that_this_host_does_not_know_counts_as_the_runs(fake: FakeNvml, watches: list[GpuWatch]) -> None:
    """NVML numbers processes as the host does; where inbounds runs in a container, the jail's numbers are strange."""
    watch = begin(fake, watches)
    fake.says(used=9_000, processes=(("c", NOBODYS, 600, 0),))
    assert "600 MiB" in found(watch).words


def test_a_process_that_has_just_ended_is_not_taken_for_the_runs(fake: FakeNvml, watches: list[GpuWatch]) -> None:
    watch = begin(fake, watches)
    device = gpuwatch._Device()
    seen = Seen(0, 0, 0, {NOBODYS: (1 << 40, 0)})
    assert watch._counted(seen, device) == {ME}
    assert watch._counted(seen, device) == {ME, NOBODYS}, "twice in a row it is nobody who has just ended"


@pytest.mark.parametrize("mode", ["c", "h", "e", "gone", "rate"])
def test_whoever_cannot_watch_any_more_says_so_and_it_is_no_ceiling(
    fake: FakeNvml, watches: list[GpuWatch], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library crashes, hangs or answers an error; its program is killed; the GPU stops telling."""
    monkeypatch.setattr(gpuwatch, "SILENCE_SECONDS", 3)
    watch = begin(fake, watches)
    quiet(watch)
    match mode:
        case "gone":
            watch._child.process.kill()
        case "rate":
            fake.says(rate=-1, listed=NOT_SUPPORTED)
        case "e":
            fake.says(memory=15)
        case _:
            fake.says(mode)
    finding = found(watch)
    assert not finding.exceeded
    assert "GPU" in finding.words or "NVML" in finding.words
    before = time.monotonic()
    watch.stop()
    assert time.monotonic() - before < 2 * gpuwatch.END_SECONDS
    assert watch._child.process.poll() is not None


@pytest.mark.parametrize("wrong", ["missing", "no library", "init", "memory", "other GPU", "untold", "other minor"])
def test_what_cannot_be_watched_is_refused_at_the_start(
    fake: FakeNvml, watches: list[GpuWatch], tmp_path: Path, wrong: str
) -> None:
    grant = fake.grant((0,))
    text = tmp_path / "text.so"
    text.write_text("no library")
    match wrong:
        case "missing":
            grant = Grant(grant.devices, (0,), "libinbounds-nowhere.so.1")
        case "no library":
            grant = Grant(grant.devices, (0,), str(text))
        case "init":
            fake.says(init=9)
        case "memory":
            fake.says(memory=15)
        case "untold":
            fake.says(rate=-1, listed=NOT_SUPPORTED)
        case _:
            grant = Grant(grant.devices, (3,), grant.library)
    with pytest.raises(HostError):
        GpuWatch.start(grant, ROOMY, set)
    fake.says()
    begin(fake, watches)  # the control


def test_a_gpu_is_known_by_its_number_and_not_by_its_place_in_a_list(fake: FakeNvml, watches: list[GpuWatch]) -> None:
    """NVML's first is /dev/nvidia7 here, full and busy: nobody granted it."""
    fake.says(listed=NOT_SUPPORTED)
    quiet(begin(fake, watches))
    other = GpuWatch.start(fake.grant((OTHER_MINOR,)), ROOMY, set)
    watches.append(other)
    assert "GPU 7: 900000 MiB" in found(other).words


def test_the_library_has_no_root_no_network_and_no_file_to_write(fake: FakeNvml, watches: list[GpuWatch]) -> None:
    watch = begin(fake, watches)
    written = fake.figures.with_name("figures.written")
    fake.says("w")
    loads = f"import ctypes; ctypes.CDLL({str(fake.library)!r}).nvmlInit_v2()"
    subprocess.run([sys.executable, "-I", "-c", loads], check=True, timeout=SECONDS)
    assert written.read_bytes() == b"x", "the control: it writes where nothing keeps it from it"
    written.write_bytes(b"")
    written.chmod(0o666)
    quiet(watch)
    assert written.read_bytes() == b""
    status = Path(f"/proc/{watch._child.pid}/status").read_text()
    facts = {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert int(facts["Uid"].split()[1]) == (nvml.NOBODY if os.getuid() == 0 else os.getuid())
    assert int(facts["CapEff"], 16) == 0
    assert facts["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"memory": -1},
        {"memory": True},
        {"memory": "100"},
        {"memory": 1 << 60},
        {"rate": 101},
        {"rate": 1.5},
        {"processes": "none"},
        {"processes": [[1, 2]]},
        {"processes": [["1", 2, 3]]},
        {"processes": [[1, 2, 3, 4]]},
        {"processes": [[-1, 2, 3]]},
        {"processes": [[1, 2, 3]] * 5_000},
        {"minor": None},
        {"event": "ready"},
        {"more": 1},
    ],
)
def test_what_the_library_has_the_program_say_is_parsed_strictly(odd: dict[str, object]) -> None:
    plain = {"event": "seen", "minor": 0, "memory": 1, "rate": 2, "processes": [[10, 5, None]]}
    assert Seen.parse(plain) == Seen(0, 1, 2, {10: (5, None)})
    with pytest.raises((ValueError, TypeError)):
        Seen.parse({**plain, **odd} if odd else {})
