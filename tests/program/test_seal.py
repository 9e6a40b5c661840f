"""The seal's parts that no one program shows: its numbers, its measuring, and that it closes what it was not given."""

import json
import os
import subprocess
import sys

import pytest

from inbounds.program import seccomp
from inbounds.sandbox import syscalls

TABLES = {**syscalls.ALLOWED, **syscalls.REFUSED, **syscalls.INSPECTED}
OURS = {**seccomp.NEVER, **seccomp.FILES, **seccomp.PROGRAMS, **seccomp.SOCKETS, "clone": seccomp.CLONE}


def ran(program: str, *arguments: str, **more) -> dict:
    """What a Python program of its own printed as JSON: a seal has no way back."""
    argv = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_calls_have_the_numbers_that_the_jails_table_has():
    known = OURS.keys() & TABLES.keys()
    assert len(known) > 60
    assert {name: OURS[name] for name in known} == {name: TABLES[name] for name in known}


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_a_filter_fits_the_kernel_and_an_unknown_machine_has_none(machine):
    least = seccomp.Allowed(files=False, programs=False, threads=False, sockets=False)
    made = seccomp.instructions(machine, least)
    assert {len(step) for step in made} == {8}
    assert len(made) < 4096
    assert seccomp.instructions("m68k", least) is None


def test_inherited_descriptors_are_closed():
    reading, writing = os.pipe()
    program = """
import json, os, sys
from inbounds.program.seal import begin
kept, other = int(sys.argv[1]), int(sys.argv[2])
found = begin(kept)
os.fstat(kept)
try:
    os.fstat(other)
except OSError:
    found["other"] = "closed"
print(json.dumps(found))
"""
    found = ran(program, str(reading), str(writing), pass_fds=(reading, writing))
    os.close(reading)
    os.close(writing)
    assert found.pop("other") == "closed"
    assert found == dict.fromkeys(("non_dumpable", "no_new_privs", "no_core", "closed_descriptors"), "enforced")


MEASURED = """
import json, os, sys
from inbounds.program import landlock, seal, seccomp
for name in sys.argv[1:]:
    if name == "landlock":
        landlock.restrict = lambda *_: None
    if name == "seccomp":
        seal.prctl_filter = lambda *_: None
seal.begin()  # without no_new_privs an ordinary user may not seal anything
print(json.dumps(seal.seal(seal.Rights(connect=(443,), read=("/",), threads=True))))
"""


def test_a_mechanism_that_does_not_hold_is_measured_as_absent():
    whole = ran(MEASURED)
    assert set(whole) == {"landlock_files", "landlock_network", "landlock_scopes", "seccomp"}
    loose = ran(MEASURED, "landlock", "seccomp")
    assert all(found.startswith("absent: ") for found in loose.values()), loose
    assert whole["seccomp"] == "enforced"


STARTER = """
import json, os, socket, subprocess
from inbounds.program.seal import Rights, begin, seal
found = begin() | seal(Rights(read=("/",), execute=("/",), write=("/dev/null",), threads=True))
found["child"] = subprocess.run(["/bin/sh", "-c", "echo hello"], capture_output=True, text=True).stdout
found["writes"] = subprocess.run(["/bin/sh", "-c", ": > /dev/zero"], capture_output=True).returncode
try:
    found["socket"] = repr(socket.socket(socket.AF_UNIX))
except PermissionError:
    found["socket"] = "denied"
print(json.dumps(found))
"""


def test_a_program_that_starts_others_binds_them_too():
    found = ran(STARTER)
    assert found["child"] == "hello\n"
    assert found["socket"] == "denied"
    if found["landlock_files"] == "enforced":
        assert found["writes"] != 0
