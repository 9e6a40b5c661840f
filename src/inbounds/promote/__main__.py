"""The promoter: its own program, the only one that moves protected refs. One request on stdin, one answer on stdout.

Exit status 0 promoted or rolled back, 1 refused, 100 a malformed request, 111 the host failed (refused, too).
"""

import json
import os
import sys

from inbounds.contracts.errors import EXIT_HOST, EXIT_KEPT, EXIT_REFUSED, InboundsError
from inbounds.program.seal import ENFORCED, begin, seal
from inbounds.promote import gate, landing
from inbounds.promote.request import REQUEST_BYTES_MAX, Answer, Request, parse
from inbounds.promote.rights import rights
from inbounds.store.store import Store


def decide(request: Request, begun: dict[str, str]) -> Answer:
    """Seal, judge the evidence, then land or take back. `begun` is what `seal.begin` found."""
    if not os.path.isfile(os.path.join(request.store, "HEAD")):
        return Answer("refused", request.target, "", "", (f"there is no store at {request.store!r}",))
    for mechanism, found in (begun | seal(rights(request.store))).items():
        if found != ENFORCED:
            print(f"inbounds promoter: {mechanism} {found}", file=sys.stderr)
    reasons = gate.objections(request)
    store = Store.open(request.store)
    if reasons:
        old = store.ref(f"refs/heads/{request.target}") or ""
        return Answer("refused", request.target, old, old, reasons)
    return landing.promote(store, request) if request.op == "promote" else landing.rollback(store, request)


def main() -> int:
    """Answer the one request."""
    try:
        begun = begin()
        answer = decide(parse(sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)), begun)
        code = EXIT_REFUSED if answer.outcome == "refused" else EXIT_KEPT
    except InboundsError as error:
        answer, code = Answer("refused", "", "", "", (error.one_line(),)), error.exit_code
    except Exception as error:  # whatever happens in here, a gate that fails stays shut and says so
        answer, code = Answer("refused", "", "", "", (f"the promoter failed: {error!r}",)), EXIT_HOST
    print(json.dumps(answer.as_json()), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
