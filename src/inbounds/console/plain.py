"""Untrusted text as text: what would steer a terminal, hide or reorder is written out, never obeyed (ATTACKS).

Knows Unicode's categories; not where the text came from. A back-slash stays itself, so an escape that was already
spelt out in the text looks the same as one made here.
"""

import unicodedata

# Blank or invisible though their category says letter, mark or symbol.
_HIDDEN = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0})
_VARIATION = range(0xFE00, 0xFE10)
# Controls, formats (bidi, zero width, tags), surrogates, private, unassigned, line and paragraph separators.
_ODD = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Unicode's pictures of controls would read better, and many systems have no font for them.
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Letters of living scripts carry up to three marks; a tower of them paints over the lines above.
MARKS_MAX = 3


def visible(text: str, *, lines: bool = False, limit: int = 0) -> str:
    r"""The text with every control, bidi override, zero-width and odd blank shown: ESC as \x1b, U+202E as \u202e.

    `lines` keeps newlines and tabs (for blocks); `limit` > 0 cuts after so many characters and says how many follow.
    """
    over = len(text) - limit if limit and len(text) > limit else 0
    if over:
        text = text[:limit]
    shown = text if text.isascii() and text.isprintable() else _shown(text, lines=lines)
    return f"{shown}… ({over} more characters)" if over else shown


def _shown(text: str, *, lines: bool) -> str:
    out: list[str] = []
    marks = 0
    for char in text:
        code = ord(char)
        kind = unicodedata.category(char)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if lines and char in "\n\t":
            out.append(char)
        elif char in _SHORT:
            out.append(_SHORT[char])
        elif (
            kind in _ODD or (kind == "Zs" and char != " ") or code in _HIDDEN or code in _VARIATION or marks > MARKS_MAX
        ):
            out.append(_escape(code))
        else:
            out.append(char)
    return "".join(out)


def _escape(code: int) -> str:
    if code <= 0xFF:  # noqa: PLR2004 - one byte
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the basic plane
