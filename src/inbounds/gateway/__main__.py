"""`python -m inbounds.gateway --control-fd N`: nothing but the number of a descriptor stands in argv."""

import sys

from inbounds.contracts.errors import EXIT_OPERATOR


def main(argv: list[str]) -> int:
    """Parse the one argument and serve."""
    if len(argv) != 2 or argv[0] != "--control-fd" or not argv[1].isdecimal():  # noqa: PLR2004 - a flag and its value
        sys.stderr.write("usage: python -m inbounds.gateway --control-fd N (started by the supervisor)\n")
        return EXIT_OPERATOR
    from inbounds.gateway.program import run

    return run(int(argv[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
