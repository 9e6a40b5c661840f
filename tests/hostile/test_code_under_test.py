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


@pytest.mark.req("E7")
@pytest.mark.parametrize("place", ["/out", "/work"])
def test_a_test_that_fills_the_disk_is_stopped(rig: Rig, place: str) -> None:
    ran = rig.run(script(write("invoice.py", FILLS.format(place=place))), limits=LimitsText(disk="128M"))
    assert ran.code == "STOP_RESOURCES_EXCEEDED", ran.data("stop.decided")
    assert not list((ran.run_dir / "jobs").iterdir())
    assert not ran.alive()
