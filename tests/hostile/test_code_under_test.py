"""Production code that an agent wrote runs again in the tester's jail, without the agent: what it can do there."""

import pytest
from runrig import Rig, script, write

from inbounds.contracts.documents import LimitsText

FILLS = """
import os, time

for number in range(64):
    with open(os.path.join({place!r}, f"fill-{{number}}"), "wb") as file:
        for _ in range(16):
            file.write(os.urandom(1 << 20))
time.sleep(60)
"""


@pytest.mark.parametrize("place", ["/out", "/work"])
def test_a_test_that_fills_the_disk_is_stopped(rig: Rig, place: str) -> None:
    ran = rig.run(script(write("invoice.py", FILLS.format(place=place))), limits=LimitsText(disk="128M"))
    assert ran.code == "STOP_RESOURCES_EXCEEDED", ran.data("stop.decided")
    assert not list((ran.run_dir / "jobs").iterdir())
    assert not ran.alive()


FORGES = """

def _settle():
    import sys

    runner = sys.modules.get("_pytest.python")
    if runner is None:
        return
    real = runner.Function.runtest

    def runtest(self):
        try:
            real(self)
        except BaseException as error:
            if str(error) == "canary":
                raise

    runner.Function.runtest = runtest


_settle()
"""


@pytest.mark.xfail(strict=True, reason="SECURITY.md, not protected: code that forges its own tests")
def test_a_forger_who_knows_the_witness_is_caught(rig: Rig) -> None:
    before = (rig.stage.thread / "invoice.py").read_text(encoding="utf-8")
    ran = rig.run(script(write("invoice.py", before + FORGES), {"text": "done"}))
    assert ran.code != "DONE"
