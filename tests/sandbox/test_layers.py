"""The layer of Landlock that a command has below PID 1's: PID 1 is out of its reach, and its own work is not.

What the rules forbid is tried in test_jail_attacks.py.
"""

import pytest
from jailrig import Rig

from inbounds.sandbox.spec import ENFORCED, Bind

TRY = """
    import signal, subprocess
    child = subprocess.Popen(["sleep", "60"])
    print(outcome(os.kill, child.pid, signal.SIGTERM), child.wait())
    print(outcome(os.kill, 1, 0))
    for name in ("a", "b"):
        os.mkdir(name)
    open("a/x", "w").close()
    print(outcome(os.rename, "a/x", "b/x"), outcome(os.link, "b/x", "a/y"), outcome(os.truncate, "b/x", 1))
    print(outcome(open, "/run/inbounds/unlisted/x", "w"), outcome(os.rename, "/run/inbounds/unlisted", "/tmp/y"))
"""


def test_a_command_cannot_signal_its_pid_1_and_works_as_before(rig: Rig) -> None:
    work = rig.directory("work")
    ended = rig.python(TRY, cwd="/work", binds=(Bind(str(work), "/work", writable=True),))
    lines = ended.lines
    assert lines[0] == "done -15", "the control: it may signal what is its own"
    assert lines[2] == "done done done", "moving, linking and cutting in what it may write"
    if ended.enforcement["landlock_files"] == ENFORCED:
        assert lines[3].startswith("EACCES E"), lines[3]
    if ended.enforcement["landlock_scopes"] != ENFORCED:
        pytest.skip(f"no scopes on this kernel: {ended.enforcement['landlock_scopes']}")
    assert lines[1] == "EPERM"
