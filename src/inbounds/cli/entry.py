"""Where the command begins: a visit that was prepared before is entered at once, all else is the verbs' (cli/main.py).

Imports nothing before it knows which: the parser alone takes longer to load than such a visit's checks.
"""

import os
import sys


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["shell"]:
        from inbounds.run import quick

        try:
            code = quick.visit(sys.argv[2:])
        except KeyboardInterrupt:
            sys.stderr.write("inbounds: interrupted\n")
            code = 1
        if code is not None:
            sys.stderr.flush()
            os._exit(code)  # nothing is left to be undone: 5 ms of taking the interpreter down
    from inbounds.cli.main import main as verbs

    verbs()
