"""`inbounds doctor` at a real installation: level 3 for its operator and for root, 2 for whoever it does not serve."""

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_install import _host, _settled, places  # noqa: F401 - a fixture is used by its name
from test_run_hardened import an_interpreter_for, become

from inbounds.host.install import Places, install, uninstall
from inbounds.sandbox.hardened import PLACE
from inbounds.sandbox.maturity import INSTALL, LEVEL_3
from inbounds.sandbox.spec import ENFORCED

SECONDS = 180


@pytest.fixture
def operator() -> Iterator[str]:
    """An account of a person, for as long as the test runs."""
    name = f"inbounds-t{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", name], check=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the operator's."""
    made = Path(tempfile.mkdtemp(prefix="inbounds-doctor-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made)


def doctor(installed: Places, home: Path, python: str = sys.executable, *become: str) -> dict[str, Any]:
    """What it says, as whom it is asked."""
    done = subprocess.run(
        [*become, python, "-m", "inbounds", "doctor", "--json"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), PLACE: installed.paths.socket, "INBOUNDS_HOME": f"{home}/state"},
        cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.req("P3", "P4", "F10")
def test_a_host_as_install_leaves_it_is_of_level_3(places: Places, operator: str, place: Path, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    before = _host()
    facts = install(places, [operator])
    assert (facts["answers"], facts["operators"], facts["problems"]) == (True, [operator], [])
    uid = subprocess.run(["id", "-u", operator], capture_output=True, text=True, check=True).stdout.strip()
    python = an_interpreter_for(place, uid)
    groups = subprocess.run(["id", "-G", operator], capture_output=True, text=True, check=True).stdout.split()
    theirs = doctor(places, place, python, *become(uid, ",".join(groups)))
    roots = doctor(places, tmp_path)
    for told in (theirs, roots):
        states = {item["name"]: item["state"] for item in told["mechanisms"]}
        lacking = {name: states[name] for name in LEVEL_3 if states[name] != ENFORCED}
        if lacking and set(lacking) <= {"packet_filter", "file_events"}:
            pytest.skip(f"this kernel lacks {lacking}")
        assert lacking == {}
        assert (told["level"], told["host_level"], told["raise_it"]) == (3, 3, ""), told
        assert told["modes"]["rootless"]["level"] <= 2
    # the control: who is in no group is not served, and is told what would raise it
    shutil.rmtree(place / "state")
    stranger = doctor(places, place, python, *become(uid, uid))
    assert stranger["level"] == stranger["modes"]["rootless"]["level"] <= 2
    assert "inbounds-operators" in stranger["modes"]["hardened"]["problem"]
    assert stranger["raise_it"] == INSTALL
    uninstall(places)
    assert _settled(before), (_host(), before)
    gone = doctor(places, tmp_path)
    assert (gone["level"], gone["modes"]["hardened"]["usable"]) == (gone["modes"]["rootless"]["level"], False)
