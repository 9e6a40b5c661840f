"""A thread of a compiled language: what it builds is executed in its declared directory, and is no part of the result."""

from pathlib import Path

import pytest
from aftermath import rogue, said
from runrig import Rig, script

from inbounds.contracts.blast import radius
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.paths import joined

IDLE = script({"text": "Nothing to do."})
BUILDS = """
import shutil, subprocess
write("notes.py", "X = 1\\n")
def runs(place):
    os.makedirs(place, exist_ok=True)
    shutil.copy("/usr/bin/true", place + "/built")
    try:
        return subprocess.run([place + "/built"]).returncode
    except OSError as error:
        return error.strerror
say(there=runs("target"), elsewhere=runs("elsewhere"))
os.remove("elsewhere/built")
"""


def _config(rig: Rig, text: str) -> None:
    place = joined(_thread(rig), ".inbounds/config.yaml")
    rig.edit(place, (rig.stage.repository / place).read_text(encoding="utf-8") + text)


def _thread(rig: Rig) -> str:
    return str(Path(rig.stage.thread).relative_to(rig.stage.repository))


@pytest.mark.req("F5")
def test_what_is_built_is_executed_where_it_was_declared(rig: Rig, tmp_path: Path) -> None:
    directory = joined(_thread(rig), "target")
    _config(rig, f"build_directories: [{directory}]\n")
    ran = rig.run(IDLE, install=rogue(tmp_path, BUILDS), limits=LimitsText(iterations=1))
    assert "'there': 0" in said(ran).replace('"', "'"), said(ran)
    assert "'elsewhere': 'Permission denied'" in said(ran).replace('"', "'"), said(ran)
    assert ran.contract.build_directories == (directory,)
    shown = radius(ran.contract, ("host",))["can_execute"]
    assert any(directory in line for line in shown), shown
    store_tree = ran.data("snapshot.taken")[-1]
    assert "built" not in str(store_tree)


def test_control_undeclared_nothing_that_was_written_runs(rig: Rig, tmp_path: Path) -> None:
    ran = rig.run(IDLE, install=rogue(tmp_path, BUILDS), limits=LimitsText(iterations=1))
    assert "'there': 'Permission denied'" in said(ran).replace('"', "'"), said(ran)
    assert radius(ran.contract, ("host",))["can_execute"] == [
        "system programs, the interpreter, the dependency layer; nothing that it wrote"
    ]


@pytest.mark.parametrize(
    ("directory", "because"),
    [
        ("{thread}", "can be no build directory"),
        ("elsewhere", "can be no build directory"),
        ("{inside}.inbounds/x", "is there"),
        ("{inside}tests", "is there"),
        ("{inside}tax.py", "HEAD has"),
        ("../x", ""),
    ],
)
def test_a_place_that_is_something_else_is_refused(rig: Rig, directory: str, because: str) -> None:
    thread = _thread(rig)
    inside = "" if thread == "." else f"{thread}/"
    _config(rig, f"build_directories: ['{directory.format(thread=thread, inside=inside)}']\n")
    rig.plays(IDLE)
    with pytest.raises(OperatorError, match=because):
        rig.order()


def test_policy_may_refuse_all_of_them(rig: Rig) -> None:
    _config(rig, f"build_directories: [{joined(_thread(rig), 'target')}]\n")
    policy = rig.stage.repository / ".inbounds/policy.yaml"
    rig.edit(".inbounds/policy.yaml", policy.read_text(encoding="utf-8") + "enforcement: {build_directories: refuse}\n")
    rig.plays(IDLE)
    with pytest.raises(OperatorError, match="widens what policy grants"):
        rig.order()
