"""`python -m inbounds.sandbox [--write] [--json] -- COMMAND…`: one command in a jail over the current directory.

For trying what holds; the product's own verb is `inbounds shell`. The directory is read-only unless --write is given.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from inbounds.contracts.errors import InboundsError
from inbounds.contracts.job import RESOLVER_PORT, WORK
from inbounds.sandbox.decoys import Decoys
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.resolver import Resolver
from inbounds.sandbox.spec import Bind, JailExit, JailSpec, Listener

SIGNAL_BASE = 128  # how shells report the death by a signal


def run(command: list[str], *, writable: bool, deadline_ms: int, show: bool) -> int:
    """Run it and pass its output on; its exit code, 128 plus its signal, or 1 if the jail ended it."""
    who = identity(str(os.getpid()))
    with tempfile.TemporaryDirectory(prefix="inbounds-shell-") as name:
        scratch = Path(os.path.realpath(name))
        decoys = Decoys(scratch / "decoys", who, lambda path: print(f"decoy opened: ~/{path}", file=sys.stderr))
        spec = JailSpec(
            role="shell",
            argv=tuple(command),
            binds=(Bind(os.path.realpath("."), WORK, writable=writable),),
            listeners=(Listener("resolver", "udp", RESOLVER_PORT),),
            decoys=decoys.files,
            deadline_ms=deadline_ms,
        )
        try:
            jail = spawn(spec, identity=who, scratch=scratch)
            resolver = Resolver(
                jail.listeners["resolver"], lambda asked: print(f"name asked for: {asked.name}", file=sys.stderr)
            )
            try:
                if show:
                    print(json.dumps(jail.enforcement, indent=2), file=sys.stderr)
                jail.go()
                end = jail.wait()
            finally:
                end = jail.kill()
                resolver.close()
        finally:
            decoys.close()
        for stream, path in ((sys.stdout, scratch / "stdout"), (sys.stderr, scratch / "stderr")):
            stream.buffer.write(path.read_bytes())
        return _code(end)


def _code(end: JailExit) -> int:
    if end.reason != "exited":
        print(f"inbounds: the jail ended: {end.reason} {end.detail}".rstrip(), file=sys.stderr)
        return 1
    return SIGNAL_BASE + end.signal if end.signal else end.exit_code


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m inbounds.sandbox", description=__doc__)
    parser.add_argument("--write", action="store_true", help="show the current directory writable")
    parser.add_argument("--json", action="store_true", help="print what is enforced to stderr")
    parser.add_argument("--seconds", type=int, default=600, help="deadline")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        return run(command, writable=options.write, deadline_ms=options.seconds * 1000, show=options.json)
    except InboundsError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
