"""One honest run as whoever starts this, in a state directory of its own; prints what became of it as JSON.

For tests that are root and want a run of somebody who is not.
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(path) for path in Path(__file__).resolve().parents[1].iterdir() if path.is_dir()]

from runrig import Rig  # noqa: E402 - the line above makes it reachable
from test_run_acts import played  # noqa: E402 - the line above makes it reachable

from inbounds.demo import stage  # noqa: E402 - the line above makes it reachable
from inbounds.journal.verify import verify_run  # noqa: E402 - the line above makes it reachable
from inbounds.run.home import open_home  # noqa: E402 - the line above makes it reachable


def main() -> None:
    home = open_home(Path(sys.argv[1]))
    rig = Rig(home, stage.build(home.path))
    try:
        ran = rig.run(played("honest"))
        said = {
            "code": ran.code,
            "why": ran.data("stop.decided")[-1]["why"],
            "mode": ran.contract.mode,
            "level": ran.data("preflight.finished")[0]["level"],
            "enforcement": ran.data("preflight.finished")[0]["enforcement"],
            "steps": [[item["step"], item["ok"], item["detail"]] for item in ran.data("stop.step")],
            "verified": verify_run(ran.run_dir).ok,
            "alive": ran.alive(),
        }
    finally:
        rig.close()
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
