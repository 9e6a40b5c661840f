"""A policy that asks for a young clean drill: no run starts without one, and nobody is asked to sign before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_drill_record import write

from inbounds.contracts.documents import Policy
from inbounds.contracts.errors import OperatorError, RefusedError
from inbounds.contracts.load import parse
from inbounds.journal.signing import open_signer
from inbounds.run import preflight
from inbounds.run.home import open_home


@pytest.mark.parametrize("days", [0, -1, 366, "seven"])
def test_days_are_within_a_year(days: object) -> None:
    text = {"version": 1, "operators": [], "enforcement": {"drill_max_age_days": days}}
    with pytest.raises(OperatorError):
        parse(json.dumps(text).encode(), Policy, shown="policy.yaml")
    text["enforcement"] = {"drill_max_age_days": 7}
    parse(json.dumps(text).encode(), Policy, shown="policy.yaml")


@pytest.mark.req("M12", "F10")
def test_it_is_refused_with_what_to_type(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    preflight.refuse_undrilled(home, "rootless", 0)
    for _ in range(2):  # without a key, then with one
        with pytest.raises(RefusedError) as refused:
            preflight.refuse_undrilled(home, "rootless", 7)
        assert "there was none" in refused.value.found
        assert refused.value.fix == "inbounds drill --mode rootless"
        open_signer(home.keys)


@pytest.mark.req("M12", "F10")
def test_a_run_does_not_begin_without_the_drill_that_policy_asks_for(tmp_path: Path) -> None:
    repository, home = tmp_path / "r", tmp_path / "home"
    (repository / ".inbounds").mkdir(parents=True)
    (repository / ".inbounds" / "policy.yaml").write_text(
        "version: 1\noperators: []\nenforcement: {mode: rootless, drill_max_age_days: 7}\n"
    )
    (repository / ".inbounds" / "config.yaml").write_text('version: 1\nowner: "a <a@example.com>"\n')
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "inbounds", "run", str(repository), "--goal", "x", "--accept", "t.py::test_x", "--yes"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "INBOUNDS_HOME": str(home)}, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, said = run()
    assert code == 1
    assert "policy asks for a clean drill of the rootless mode" in said
    assert "inbounds drill --mode rootless" in said
    open_home(home)
    name = write_now(home)
    code, said = run()
    assert "clean drill" not in said, (name, said)  # it goes on to the next thing that is wrong


def write_now(home: Path) -> str:
    """A clean drill of this very minute, as far as evidence goes."""
    return write(home).name
