"""`python -I -m inbounds.broker --control-fd N`: started by the supervisor, never by hand."""

import argparse
import sys

from inbounds.broker.server import serve


def main(argv: list[str] | None = None) -> int:
    """Serve until the supervisor's end of the control channel closes."""
    parser = argparse.ArgumentParser(prog="inbounds.broker", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="inherited AF_UNIX SOCK_SEQPACKET descriptor")
    return serve(parser.parse_args(argv).control_fd)


if __name__ == "__main__":
    sys.exit(main())
