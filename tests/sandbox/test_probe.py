"""The probe tells the truth: on this host, on one without Landlock, on one that forbids user namespaces."""

import json
import os
import subprocess
import sys

import pytest
from jailrig import Rig, take_away

from inbounds.contracts.errors import HostError
from inbounds.sandbox import identity as identities
from inbounds.sandbox import numbers
from inbounds.sandbox.identity import identity
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import ENFORCED, REQUIRED

# A user namespace in which no further one may be made: the kernel's own refusal, on any host.
FORBIDDING = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
if libc.unshare(0x10000000) == -1:
    sys.exit(os.strerror(ctypes.get_errno()))
for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
PROBING = """
import json, pathlib, tempfile
from inbounds.contracts.errors import HostError
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import JailSpec
facts = probe()
with tempfile.TemporaryDirectory(prefix="inbounds-test-") as scratch:
    try:
        spawn(JailSpec(role="t", argv=("true",), cwd="/"), identity=identity(), scratch=pathlib.Path(scratch))
        said = "it started"
    except HostError as error:
        said = error.one_line()
print(json.dumps([facts.level, facts.problem, facts.fix, said, len(set(facts.enforcement.values()))]))
"""


@pytest.mark.req("F10")
def test_this_host(rig: Rig) -> None:
    facts = probe()
    assert facts.level in {1, 2}
    assert facts.bubblewrap.startswith("bubblewrap ")
    assert all(facts.enforcement[name] == ENFORCED for name in REQUIRED)
    assert (facts.landlock_abi > 0) == (facts.enforcement["landlock_files"] == ENFORCED)
    assert facts.problem == ""


@pytest.mark.req("F10")
def test_a_kernel_without_landlock_lowers_the_level(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "landlock")
    facts = probe()
    assert facts.level == 1
    assert "landlock_files" in facts.lacking
    assert (
        facts.enforcement["landlock_files"] == "absent: the kernel has no Landlock (landlock: Function not implemented)"
    )
    code = """
        print(outcome(os.open, "/proc/1/mem", os.O_RDWR), outcome(os.open, "/proc/1/environ", os.O_RDONLY))
    """
    # PID 1 stays unwritable without it: its own files in /proc are seen through a read-only mount
    assert rig.python(code).lines == ["EROFS EACCES"]


@pytest.mark.req("F10")
@pytest.mark.parametrize("mechanism", ["seccomp", "net-namespace"])
def test_a_missing_mechanism_is_found_and_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch, mechanism: str) -> None:
    take_away(monkeypatch, mechanism)
    rig.require = ()
    named = mechanism.replace("-", "_")
    ended = rig.run("true")
    assert ended.enforcement[named].startswith("absent: ")
    assert probe().level == 0
    rig.require = None
    with pytest.raises(HostError, match=f"does not enforce .*{named}"):
        rig.run("true")


def test_user_namespaces_forbidden_is_a_clear_error_with_the_command(rig: Rig) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", FORBIDDING, PROBING], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    level, problem, fix, said, values = json.loads(ran.stdout)
    assert level == 0
    assert values == 1
    assert "max_user_namespaces is 0" in problem
    assert fix == "sudo sysctl -w user.max_user_namespaces=15000"
    assert fix in said


def test_root_drops_to_a_number_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(identities, "_given", {})  # this process's real ones are for the next test
    first, second = identity("run-1"), identity("run-2")
    assert first == identity("run-1")
    assert first.dropped
    assert first.uid != second.uid
    assert numbers.FIRST_UID <= first.uid < numbers.FIRST_UID + numbers.UIDS
    monkeypatch.setattr(numbers, "free", lambda number: number == first.uid)
    monkeypatch.setattr(identities, "free", numbers.free)
    with pytest.raises(HostError, match="in use"):
        identity("run-3")
    monkeypatch.setattr(numbers, "free", lambda number: False)
    monkeypatch.setattr(identities, "free", numbers.free)
    assert identity("x").uid == identities.NOBODY
    monkeypatch.setattr(identities, "mapped", lambda number, table: False)
    with pytest.raises(HostError, match="maps no other user"):
        identity("y")


def test_the_command_line_runs_one_command(rig: Rig) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, "-m", "inbounds.sandbox", *command],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    work = rig.directory("work")
    ran = run("--", "sh", "-c", "pwd; touch x; exit 3")
    assert (ran.returncode, ran.stdout) == (3, "/work\n")
    assert "Read-only" in ran.stderr
    ran = run("--json", "--", "cat", "/home/agent/.kube/config")
    assert "decoy opened: ~/.kube/config" in ran.stderr
    assert '"seccomp": "enforced"' in ran.stderr
    ran = run("--seconds", "1", "--", "sleep", "9")
    assert ran.returncode == 1
    assert "deadline" in ran.stderr
