"""Every case of the classes ipc, processes, kernel and secrets, in real jails, as a drill runs it."""

import os
from collections.abc import Iterator

import pytest

from inbounds.drill.case import Case, built_in
from inbounds.drill.ground import Ground
from inbounds.drill.mode import choose
from inbounds.drill.runner import Drill
from inbounds.sandbox import seccomp, syscalls
from inbounds.sandbox.probe import probe

CLASSES = ("ipc", "processes", "kernel", "secrets")
CASES = [case for case in built_in() if case.class_ in CLASSES]
# Where the attempt itself needs what not every host or user has; everywhere else a control that fails is a fault.
MAY_LACK_A_CONTROL = {
    "kernel.x32-calls": "the kernel is built without x32",
    "kernel.32-bit-calls": "the kernel or the machine has no 32-bit calls",
    "kernel.modules": "the kernel is built without modules and kexec, or this is an ordinary user",
    "kernel.log": "dmesg_restrict, for an ordinary user",
    "kernel.realtime": "limits.conf gives an ordinary user none",
    "kernel.immutable-file": "only root may, and not every file system can",
    "kernel.line-discipline": "the kernel is built without n_null",
    "kernel.userfaultfd": "the kernel is built without it, or vm.unprivileged_userfaultfd",
    "kernel.perf-events": "perf_event_paranoid 3",
    "kernel.io-uring": "io_uring_disabled",
    "kernel.segments-and-ports": "only x86_64 has them",
    "kernel.crash-handler": "a hard limit of 0 for core dumps",
    "kernel.interpreter-registered": "binfmt_misc has no namespaces before Linux 6.7",
    "secrets.core-dump-read": "a hard limit of 0 for core dumps, or core_pattern names a program",
    "secrets.password-file": "an ordinary user may read none of them",
    "ipc.vsock": "the kernel is built without vsock",
    "ipc.terminal-input": "dev.tty.legacy_tiocsti is 0",
    "ipc.posix-queue": "the user's limit of message queues",
}


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    facts = probe()
    if facts.level == 0:
        pytest.skip(f"no jail can be made here: {facts.problem}; {facts.fix}")
    with Drill(Ground(), choose("rootless", f"test-{os.getpid()}")) as made:
        yield made


@pytest.mark.req("M9", "M12")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_succeeds_outside_and_not_inside(drill: Drill, case: Case) -> None:
    result = drill.case(case)
    if result.outcome == "NO CONTROL" and case.id in MAY_LACK_A_CONTROL:
        pytest.skip(f"{MAY_LACK_A_CONTROL[case.id]}: {result.observed}")
    assert result.outcome in {"BLOCKED", "CONTAINED", "DETECTED"}, result
    assert result.control == "proven"
    assert result.observed


# What has to hold on a kernel without Landlock as well: PID 1 stays out of reach, and nothing written is executed.
WITHOUT_LANDLOCK = (
    "processes.init-surface", "processes.memory", "processes.root-of-another", "processes.signal-init",
    "processes.starve-init", "processes.limit-init", "processes.out-of-memory-score", "processes.kernel-settings",
    "kernel.executed-copy", "kernel.devices", "ipc.other-processes-descriptors",
)  # fmt: skip


@pytest.fixture
def no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without Landlock, as far as anything behind this filter can tell: its calls give ENOSYS."""
    kept = {name: numbers for name, numbers in syscalls.ALLOWED.items() if not name.startswith("landlock_")}
    monkeypatch.setattr(seccomp, "ALLOWED", kept)
    seccomp.program.cache_clear()


@pytest.mark.req("F10")
@pytest.mark.parametrize("name", WITHOUT_LANDLOCK)
def test_it_does_not_without_landlock_either(drill: Drill, no_landlock: None, name: str) -> None:
    [case] = [case for case in CASES if case.id == name]
    try:
        result = drill.case(case)
    finally:
        seccomp.program.cache_clear()
    assert result.outcome == "BLOCKED", result


def test_there_are_enough_of_each() -> None:
    count = {name: sum(case.class_ == name for case in CASES) for name in CLASSES}
    assert sum(count.values()) >= 55
    assert min(count.values()) >= 8
    assert {case.id for case in CASES} >= set(MAY_LACK_A_CONTROL)


def test_a_case_that_observes_nothing_is_a_fault() -> None:
    """What a case reads must come from its program: an answer without it would pass whatever happened."""
    silent = {
        "said": {},
        "exit": {"reason": "exited", "code": 0, "signal": 0},
        "outside": {},
        "work": {},
        "received": 0,
    }
    silent |= {
        "alive": 0,
        "denials": [],
        "findings": [],
        "leaked": False,
        "victim_alive": True,
        "stdout": "",
        "stderr": "",
    }
    believing = []
    for case in CASES:
        try:
            case.observe(silent, silent)
        except KeyError:
            continue
        believing.append(case.id)
    # these look at the host's side alone, which needs no word of the program's
    assert set(believing) <= {"processes.left-behind", "secrets.decoy-opened"}
