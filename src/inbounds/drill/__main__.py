"""`python -m inbounds.drill CASEFILE…`: cases while they are written, against the default policy; prints what was seen.

The drill that counts is `inbounds drill`.
"""

import sys
from pathlib import Path

from inbounds.contracts.errors import InboundsError
from inbounds.drill.case import load
from inbounds.drill.ground import Ground
from inbounds.drill.mode import choose
from inbounds.drill.runner import JOBS_DEFAULT, Drill, Result


def main() -> int:
    """Run them; 1 if any is not BLOCKED, CONTAINED or DETECTED with its control proven."""

    def tell(result: Result) -> None:
        print(f"{result.outcome:12} {result.control:10} {result.ms:6} ms  {result.case.id}: {result.observed}")

    try:
        cases = [load(Path(name)) for name in sys.argv[1:]]
        with Drill(Ground(), choose("rootless", "by-hand")) as drill:
            results = drill.run(cases, jobs=JOBS_DEFAULT, tell=tell)
    except InboundsError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_code
    return int(any(not r.counted or r.outcome == "ESCAPED" for r in results))


if __name__ == "__main__":
    sys.exit(main())
