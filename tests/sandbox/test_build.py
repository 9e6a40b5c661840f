"""A declared build directory: what is written there can be executed, and nothing else of the workspace can."""

import os
from pathlib import Path

import pytest
from jailrig import Rig, limits

from inbounds.contracts.errors import OperatorError
from inbounds.sandbox.spec import Bind, JailSpec

TRY = """
import shutil, subprocess
def runs(place):
    path = place + "/true"
    try:
        shutil.copy("/usr/bin/true", path)
        return "done" if subprocess.run([path]).returncode == 0 else "failed"
    except OSError as error:
        return errno.errorcode[error.errno]
print(*[runs(place) for place in sys.argv[1:]])
"""


def _work(rig: Rig) -> tuple[Path, tuple[Bind, ...]]:
    work = rig.directory("work")
    return work, (Bind(str(work), "/work", writable=True),)


@pytest.mark.req("F5")
def test_what_is_built_runs_there_and_nowhere_else(rig: Rig) -> None:
    work, binds = _work(rig)
    places = ("/work/out/target", "/work", "/work/out", "/tmp", "/home/agent", "/dev/shm")
    ended = rig.python(TRY, *places, binds=binds, build=("/work/out/target",))
    assert ended.lines == ["done EACCES EACCES EACCES EACCES EACCES"]
    assert ended.enforcement["noexec"] == "enforced"
    # nothing of it is in the workspace, where the next snapshot looks
    assert os.listdir(work / "out" / "target") == []
    assert rig.python(TRY, "/work/out/target", binds=binds).lines == ["EACCES"], "the control: undeclared"


def test_it_is_empty_for_each_jail_and_bounded(rig: Rig) -> None:
    _, binds = _work(rig)
    code = """
    print(os.listdir("/work/target"), os.statvfs("/work/target").f_files, oct(os.statvfs("/work/target").f_flag & 7))
    try:
        with open("/work/target/much", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    except OSError as error:
        print(errno.errorcode[error.errno])
    """
    for _ in range(2):
        ended = rig.python(code, binds=binds, build=("/work/target",), limits=limits(build_bytes=16 << 20, inodes=500))
        assert ended.lines == ["[] 500 0o6", "ENOSPC"]  # nosuid, nodev


def test_it_is_in_the_workspace_or_nowhere() -> None:
    for path in ("/tmp/x", "/work", "/work/../etc", "work/x", "/usr"):
        with pytest.raises(OperatorError, match="build directory"):
            JailSpec(role="coder", argv=("true",), build=(path,)).check()
