"""One half of a host case, in a process of its own: `python -m inbounds.drill.hosted FILE control|attack HOST SCRATCH`.

So that a case which hangs, crashes or leaves processes behind ends with its keeper. Knows nothing of outcomes.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.drill import prelude
from inbounds.drill.case import load


@dataclass(frozen=True, slots=True)
class HostArena:
    """What a host case's functions get: `scratch`, an empty directory; `outside`; and HOST's facts."""

    scratch: Path
    outside: Path
    host: dict[str, Any]


def main() -> None:
    """Call the function and print what it says, as a source's say() would."""
    path, half, host, scratch, external = sys.argv[1:6]
    facts = json.loads(host)
    case = load(Path(path), external=bool(external))
    function = case.control if half == "control" else case.attack
    assert callable(function)
    said = function(HostArena(Path(scratch), Path(facts["outside"]), facts))
    sys.stdout.write(f"{prelude.RECORD}{json.dumps(dict(said), default=str)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
