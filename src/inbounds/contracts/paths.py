"""Repository-relative paths and globs as contracts use them; what is a path, and what lies below what.

Standard library only. Globs follow gitignore: `*` within a name, `**` across names; judging against trees is the scope
judge's work.
"""

from inbounds.contracts.errors import OperatorError

PATH_BYTES_MAX = 4_096  # PATH_MAX of the kernels we run on
CONTRACT_DIRECTORY = ".inbounds"


def relative(text: str, *, where: str = "") -> str:
    """A clean repository-relative path ("." for the root); OperatorError for absolute, `..`, NUL or empty parts."""
    path = text.rstrip("/") or text
    if path in (".", "./"):
        return "."
    path = path.removeprefix("./")
    parts = path.split("/")
    bad = path.startswith("/") or any(p in ("", ".", "..", ".git") for p in parts) or "\0" in path
    if bad or len(path.encode()) > PATH_BYTES_MAX:
        raise OperatorError(f"{text!r} is no path inside the repository", where=where, expected="such as src/app.py")
    return path


def below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it; "." holds everything."""
    return directory in (".", path) or path.startswith(directory + "/")


def joined(directory: str, path: str) -> str:
    """`path` as seen from the repository when it was written relative to a thread."""
    return path if directory == "." else f"{directory}/{path}"


def test_file(test_id: str) -> str:
    """The file of a pytest node id "tests/x.py::test_y[1]"."""
    return test_id.split("::", 1)[0]
