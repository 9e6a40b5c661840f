"""A unified diff as files and coloured lines, for showing only: no judgement looks at it (ARCHITECTURE, step 5).

The text is made by the trusted store, its content is the agent's: limits everywhere, nothing interpreted.
"""

from dataclasses import dataclass, field

# A person reads some thousand lines over breakfast; the rest is a command away.
FILES_MAX, FILE_LINES_MAX, LINES_MAX, LINE_CHARS_MAX = 200, 600, 6_000, 400
DIFF_BYTES_MAX = 8 << 20

_HEADERS = (
    "index ",
    "--- ",
    "+++ ",
    "old mode",
    "new mode",
    "new file",
    "deleted file",
    "similarity",
    "rename ",
    "copy ",
)


@dataclass(slots=True)
class Line:
    """`kind` is add, del, hunk or same; numbers are 0 where a side has no such line."""

    kind: str
    old: int
    new: int
    text: str


@dataclass(slots=True)
class FileDiff:
    """One file's part; `left_out` counts lines that are not shown."""

    name: str
    notes: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Diff:
    """All files; `files_left_out` beyond the limit, `cut` when the text itself was longer than what is read."""

    files: tuple[FileDiff, ...]
    added: int
    removed: int
    files_left_out: int
    cut: bool


def parse(raw: bytes) -> Diff:
    """Read `git diff` output; bytes that are no UTF-8 become escapes, counts cover what is left out of the lists."""
    cut = len(raw) > DIFF_BYTES_MAX
    files: list[FileDiff] = []
    shown, old, new = 0, 0, 0
    in_hunk = False
    # Only the line feed ends a line: str.splitlines would let a form feed in the content start a header.
    for text in raw[:DIFF_BYTES_MAX].decode("utf-8", "backslashreplace").split("\n"):
        if text.startswith("diff --git "):
            files.append(FileDiff(_name(text)))
            in_hunk = False
            continue
        if not files:
            continue
        current = files[-1]
        if not in_hunk and text.startswith(_HEADERS):
            if text.startswith(("old mode", "new mode", "new file", "deleted file", "rename ")):
                current.notes.append(text)
            continue
        kind = _kind(text, in_hunk=in_hunk)
        if not kind:
            continue
        if kind == "hunk":
            in_hunk = True
            old, new = _starts(text)
        current.added += kind == "add"
        current.removed += kind == "del"
        if shown < LINES_MAX and len(current.lines) < FILE_LINES_MAX:
            sides = (0 if kind in ("add", "hunk") else old, 0 if kind in ("del", "hunk") else new)
            current.lines.append(Line(kind, *sides, text if kind == "hunk" else text[1:]))
            shown += 1
        else:
            current.left_out += 1
        old += kind in ("del", "same")
        new += kind in ("add", "same")
    return Diff(
        tuple(files[:FILES_MAX]),
        sum(file.added for file in files),
        sum(file.removed for file in files),
        max(0, len(files) - FILES_MAX),
        cut,
    )


def _kind(text: str, *, in_hunk: bool) -> str:
    if text.startswith("@@ "):
        return "hunk"
    if not in_hunk:
        return "hunk" if text.startswith("Binary files ") else ""
    return {"+": "add", "-": "del", " ": "same", "\\": "same"}.get(text[:1], "")


def _name(header: str) -> str:
    """The new path of "diff --git a/x b/x"; both are equal except in renames, which say so in a note."""
    rest = header.removeprefix("diff --git ")
    half = rest[len(rest) // 2 + 1 :]
    return half.removeprefix('"').removesuffix('"').removeprefix("b/") if half.startswith(("b/", '"b/')) else rest


def _starts(hunk: str) -> tuple[int, int]:
    numbers = [0, 0]
    for part in hunk.split(" ")[1:3]:
        digits = part[1:].split(",", 1)[0]
        if part[:1] in ("-", "+") and digits.isdigit() and len(digits) < 10:  # noqa: PLR2004 - no file has more lines
            numbers[part[0] == "+"] = int(digits)
    return numbers[0], numbers[1]
