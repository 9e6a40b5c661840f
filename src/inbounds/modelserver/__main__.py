"""`python -m inbounds.modelserver --script FILE [--port N] [--bill FILE]`: the scripted provider as a program.

Prints {"port", "url", "key"} as one JSON line when it listens; ends on SIGTERM, SIGINT, or (with --until-eof) when its
standard input closes.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading

from inbounds.contracts.errors import InboundsError
from inbounds.modelserver.script import load
from inbounds.modelserver.server import ModelServer


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; exit codes as everywhere: 100 a bad script, 111 no port."""
    parser = argparse.ArgumentParser(prog="inbounds.modelserver", description=__doc__)
    parser.add_argument("--script", required=True, help="the scripted conversation (JSON)")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--bill", help="file that gets one JSON line for each request")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input closes")
    given = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with contextlib.ExitStack() as held:
        try:
            out = held.enter_context(open(given.bill, "a", encoding="utf-8")) if given.bill else None
            server = held.enter_context(ModelServer(load(given.script), port=given.port, bill=out))
        except InboundsError as fault:
            print(fault.one_line(), file=sys.stderr)
            return fault.exit_code
        print(json.dumps({"port": server.port, "url": server.url, "key": server.key}), flush=True)
        if given.until_eof:
            threading.Thread(target=_end_at_eof, args=(ended,), daemon=True).start()
        ended.wait()
    return 0


def _end_at_eof(ended: threading.Event) -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
