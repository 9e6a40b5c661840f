"""Runs with a GPU that policy grants: who sees it, what ends them, and what is refused before they start.

The driver is played by NVML's stand-in (tests/sandbox/fakenvml.py) and two harmless nodes; all else is any run's.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aftermath import Watch, eventually, limits, rogue, said
from crashrig import honest
from fakenvml import NOT_SUPPORTED, FakeNvml, built
from runrig import Living, Ran, Rig, script

from inbounds.contracts.bound import Gpu
from inbounds.contracts.errors import OperatorError, RefusedError
from inbounds.run import authorize, granting, launch
from inbounds.run.granting import MECHANISM
from inbounds.run.order import Ordered
from inbounds.sandbox import census

POLICY = ".inbounds/policy.yaml"
CONFIG = "billing/.inbounds/config.yaml"
IDLE = script({"text": "Nothing to do."})
GRANT = "{devices: [0], memory_mib: 512, utilization_percent: 80, utilization_seconds: 2}"
# What an agent sees of devices; then it works on until it is ended.
LOOKS = """
import fcntl
def try_it(path):
    try:
        fcntl.ioctl(os.open(path, os.O_RDWR), 0x4601)
    except OSError as error:
        return error.strerror
say(listed=[name for name in sorted(os.listdir("/dev")) if name.startswith("nvidia")],
    granted=try_it("/dev/nvidia0"), other=try_it("/dev/nvidia1"))
time.sleep({})
"""


@pytest.fixture(scope="module")
def library() -> Iterator[FakeNvml]:
    with built() as fake:
        yield fake


@pytest.fixture
def fake(library: FakeNvml, rig: Rig) -> FakeNvml:
    """NVML's stand-in, all well, and a policy that grants a GPU."""
    library.says()
    with (rig.stage.repository / POLICY).open("a") as file:
        file.write(f"\nresources: {{gpu: {GRANT}}}\n")
    return library


def start(rig: Rig, fake: FakeNvml, tmp_path: Path, seconds: int) -> Living:
    program = rogue(tmp_path, LOOKS.replace("{}", str(seconds)))
    return rig.start(IDLE, install=program, gpus=fake, **limits(iterations=1))


def looked(living: Living) -> dict[str, object]:
    """What the agent says of its devices, once it does."""
    path = living.ran.run_dir / "logs" / "agent-1" / "stdout"
    eventually(lambda: path.exists() and path.read_text().endswith("}\n"), 60)
    found = json.loads(said(living.ran))
    assert isinstance(found, dict)
    return found


def in_jails(living: Living) -> set[int]:
    """The run's processes inside of jails, as this host numbers them."""
    supervisor = census.look(living.started.process.pid)
    assert supervisor is not None
    return {process.pid for process in census.members(supervisor) if _nested(process.pid)}


def _nested(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and len(line.split()) > 2 for line in lines)


def why(ran: Ran) -> str:
    return str(ran.data("stop.decided")[0]["why"])


@pytest.mark.req("E7")
def test_a_run_below_its_ceilings_is_done_and_its_journal_says_that_it_was_watched(rig: Rig, fake: FakeNvml) -> None:
    fake.says(used=512, rate=80, listed=NOT_SUPPORTED)  # at both, for all of its time
    ran = rig.run(honest(), gpus=fake)
    Watch(rig).check(ran, "DONE")
    assert ran.data("preflight.finished")[0]["enforcement"][MECHANISM] == "enforced"
    assert ran.data("part.failed") == []
    told = json.loads((ran.run_dir / launch.BLAST).read_bytes())["devices"]
    assert "GPU 0" in told[0]
    assert "driver" in told[0]
    assert "512 MiB" in told[1]
    assert "80 % for 2 s" in told[1]


@pytest.mark.req("E7")
def test_too_much_memory_in_the_runs_own_processes_ends_it(rig: Rig, fake: FakeNvml, tmp_path: Path) -> None:
    living = start(rig, fake, tmp_path, 120)
    assert looked(living) == {
        "listed": ["nvidia0", "nvidiactl"],
        "granted": "Inappropriate ioctl for device",
        "other": "No such file or directory",
    }
    inside = in_jails(living)
    assert inside
    fake.says(used=9_000, processes=tuple(("c", pid, 10, 0) for pid in inside))
    time.sleep(2)  # the control: some looks below the ceiling, whatever others hold
    assert living.started.process.poll() is None
    fake.says(used=9_000, processes=tuple(("c", pid, 600, 0) for pid in inside))
    ran = living.end()
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")
    assert "held by the run's processes, 512 allowed" in why(ran)


@pytest.mark.req("E7")
def test_too_much_utilisation_for_too_long_ends_it(rig: Rig, fake: FakeNvml, tmp_path: Path) -> None:
    living = start(rig, fake, tmp_path, 120)
    looked(living)
    fake.says(rate=100, listed=NOT_SUPPORTED)
    since = time.monotonic()
    ran = living.end()
    assert time.monotonic() - since > 1, "it may be busy for as long as policy says"
    Watch(rig).check(ran, "STOP_RESOURCES_EXCEEDED")
    assert "above 80 % for more than 2 s" in why(ran)


def test_a_watch_that_is_lost_ends_the_run(rig: Rig, fake: FakeNvml, tmp_path: Path) -> None:
    living = start(rig, fake, tmp_path, 120)
    looked(living)
    fake.says("c")  # the library crashes: its program is gone, the supervisor is not
    ran = living.end()
    Watch(rig).check(ran, "STOP_HOST_FAILED")
    assert "the watch over the GPU ended by itself" in why(ran)


def test_without_a_grant_the_agent_sees_no_gpu(rig: Rig, tmp_path: Path) -> None:
    ran = rig.run(IDLE, install=rogue(tmp_path, LOOKS.replace("{}", "0")), **limits(iterations=1))
    assert json.loads(said(ran))["listed"] == []
    assert MECHANISM not in ran.data("preflight.finished")[0]["enforcement"]
    assert "gpu" not in json.loads((ran.run_dir / launch.SETTINGS).read_bytes())


@pytest.mark.req("E7", "B13")
def test_a_thread_only_narrows_what_policy_grants(rig: Rig, fake: FakeNvml) -> None:
    rig.plays(IDLE)
    config = (rig.stage.repository / CONFIG).read_text()
    rig.edit(CONFIG, f"{config}\nresources: {{gpu: {{memory_mib: 100}}}}\n")
    gpu = rig.order(gpus=fake).contract.gpu
    assert (gpu.devices, gpu.memory_mib, gpu.utilization_percent) == ((0,), 100, 80)
    rig.edit(CONFIG, f"{config}\nresources: {{gpu: {{devices: []}}}}\n")
    made = rig.order()
    assert made.contract.gpu.devices == ()
    assert "devices" not in made.blast
    for wider in ("devices: [0, 1]", "memory_mib: 513", "utilization_percent: 81", "utilization_seconds: 3"):
        rig.edit(CONFIG, f"{config}\nresources: {{gpu: {{{wider}}}}}\n")
        with pytest.raises(OperatorError, match=r"widens what policy grants"):
            rig.order(gpus=fake)


@pytest.mark.req("F10")
def test_what_this_host_cannot_give_or_watch_is_refused_before_a_person_signs(rig: Rig, fake: FakeNvml) -> None:
    rig.plays(IDLE)
    assert rig.order(gpus=fake).contract.gpu.devices == (0,)  # the control
    fake.says(init=9)
    with pytest.raises(RefusedError, match="nvmlInit_v2 answers 9"):
        rig.order(gpus=fake)
    fake.says()
    gone = replace(fake, library=Path("/nowhere/libnvidia-ml.so.1"))
    with pytest.raises(RefusedError, match="cannot be loaded"):
        rig.order(gpus=gone)
    if not os.path.exists("/dev/nvidia0"):
        with pytest.raises(RefusedError) as refused:  # with this host's own nodes
            rig.order()
        assert "which this host has not" in refused.value.found
        assert refused.value.fix


@pytest.mark.req("F10")
def test_a_library_that_fails_once_it_is_signed_stops_the_preflight(rig: Rig, fake: FakeNvml) -> None:
    rig.plays(IDLE)
    made = rig.order(gpus=fake)
    fake.says(init=9)
    living = _go(rig, made)
    ran = living.end()
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert "the granted GPU cannot be had: nvmlInit_v2 answers 9" in why(ran)
    assert "coder" not in {record["role"] for record in ran.data("jail.started")}


def _go(rig: Rig, made: object) -> Living:
    assert isinstance(made, Ordered)
    contract = authorize.authorize(rig.home, made.contract, ask=lambda: True, key=rig.stage.key)
    run_dir = launch.prepare(rig.home, contract, made.blast, made.settings)
    living = Living(Ran(rig.home, run_dir), launch.start(rig.home, run_dir, made.upstreams()))
    rig.living.append(living)
    return living


@pytest.mark.req("F10")
def test_hardened_with_a_gpu_is_refused_in_clear_words(fake: FakeNvml) -> None:
    asked = Gpu((0,), 512, 80, 2)
    assert granting.settle(asked, "rootless", fake).minors == (0,)
    assert granting.settle(Gpu(), "hardened", fake).devices == (), "the control: without a GPU it is nobody's business"
    with pytest.raises(RefusedError, match="the hardened mode gives no GPU") as refused:
        granting.settle(asked, "hardened", fake)
    assert "enforcement.mode: rootless" in refused.value.fix
