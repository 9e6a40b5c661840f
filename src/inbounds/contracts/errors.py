"""Whose fault it is: the operator's (exit 100) or the host's (exit 111).

Expected outcomes are values (a Verdict, a StopCode); these two exceptions are for what a person must mend.
Knows nothing of where they are shown.
"""

EXIT_KEPT = 0
EXIT_REFUSED = 1
EXIT_OPERATOR = 100
EXIT_HOST = 111


class InboundsError(Exception):
    """What was found, what was expected, and what to type next.

    `where` is "file:line" or a name; `expected` and `fix` may be empty only where there is nothing to say.
    """

    exit_code = EXIT_REFUSED

    def __init__(self, found: str, *, expected: str = "", fix: str = "", where: str = "") -> None:
        """Keep the four parts apart, so that each surface can lay them out."""
        self.found, self.expected, self.fix, self.where = found, expected, fix, where
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """All parts on one line, for logs and exceptions printed raw."""
        parts = [f"{self.where}: {self.found}" if self.where else self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.fix:
            parts.append(f"type: {self.fix}")
        return "; ".join(parts)

    def facts(self) -> dict[str, str]:
        """The parts by name, for --json."""
        return {"found": self.found, "expected": self.expected, "fix": self.fix, "where": self.where}


class RefusedError(InboundsError):
    """A well-formed request that policy refuses (exit 1)."""


class OperatorError(InboundsError):
    """A mistake in what a person wrote or typed (exit 100)."""

    exit_code = EXIT_OPERATOR


class HostError(InboundsError):
    """Something this host lacks or failed to do (exit 111)."""

    exit_code = EXIT_HOST
