"""New characters in text that a reader does not see, or that change what is seen (CVE-2021-42574, CVE-2021-42694).

Looks at new lines only. Scripts and emoji that need joiners keep them: a joiner between two characters beyond ASCII is
ordinary. Homoglyphs are not looked for: nothing tells them from a language.
"""

import re
from collections.abc import Iterator

from inbounds.judges.added import added
from inbounds.judges.anomalies.material import Changed, Signal

FINDINGS_PER_FILE_MAX = 5  # the first lines are enough for a person to look
_BIDI = "\u202a-\u202e\u2066-\u2069"
_JOINERS = "\u200c\u200d\u200e\u200f\u061c\ufe0e\ufe0f"
_UNSEEN = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2060-\u2065\u206a-\u206f"
_FILLERS = "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb"
_FAR = "\U000e0000-\U000e007f\U000e0100-\U000e01ef"
_CONTROL = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_ANY = re.compile(f"[{_BIDI}{_JOINERS}{_UNSEEN}{_FILLERS}{_FAR}{_CONTROL}]")
_IS_BIDI = re.compile(f"[{_BIDI}]")
_IS_JOINER = re.compile(f"[{_JOINERS}]")
_IS_CONTROL = re.compile(f"[{_CONTROL}]")
_FLAG = "\U0001f3f4"  # the black flag: regional flags are made of it and of tag characters
_KEYCAPS = frozenset("0123456789#*")
_BEFORE_ASCII = 0x80


def signals(change: Changed) -> Iterator[Signal]:
    """One signal a line, at most FINDINGS_PER_FILE_MAX, for the new lines of a text."""
    new, old = _narrow(change.new), _narrow(change.old)
    if new is None or (new.isascii() and not re.search(rb"[\x01-\x08\x0e-\x1f\x7f]", new)):
        return
    count = 0
    for block in added(change.path, old, new):
        try:
            text = block.text.decode("utf-8")
        except UnicodeDecodeError:
            text = re.sub("[\x7f-\x9f]", "", block.text.decode("latin-1"))  # C1 codes are letters in older encodings
        for number, line in enumerate(text.split("\n"), block.line):
            seen = line.removeprefix("\ufeff") if number == 1 else line
            what = suspicious(seen)
            if not what:
                continue
            yield Signal("hidden_text", change.path, what, number)
            count += 1
            if count >= FINDINGS_PER_FILE_MAX:
                return


def suspicious(line: str) -> str:
    """What a line hides, in words; "" for nothing."""
    if line.isascii() and line.isprintable():
        return ""
    for match in _ANY.finditer(line):
        at, char = match.start(), match[0]
        before, after = line[at - 1 : at] if at else "", line[at + 1 : at + 2]
        named = f"U+{ord(char):04X}"
        if _IS_BIDI.match(char):
            return f"{named} changes the direction of what is read (a bidirectional control)"
        if _IS_CONTROL.match(char):
            return f"{named}, a control character"
        if _IS_JOINER.match(char):
            if char in "\ufe0e\ufe0f" and (before in _KEYCAPS or _beyond(before)):
                continue
            if _beyond(before) and (not after or _beyond(after) or not after.isalnum()):
                continue
            if char in "\u200e\u200f\u061c" and (_beyond(before) or _beyond(after)):
                continue
        elif "\U000e0000" <= char <= "\U000e007f" and _FLAG in line[max(0, at - 8) : at]:
            continue
        elif "\U000e0100" <= char <= "\U000e01ef" and "\u3400" <= before <= "\U0003ffff" and not _ANY.match(before):
            continue  # an ideographic variation sequence
        return f"{named} is invisible"
    return ""


def _narrow(data: bytes | None) -> bytes | None:
    """UTF-16 text as UTF-8; anything else as it is."""
    if data is None or not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data
    return data.decode("utf-16", "replace").encode("utf-8", "surrogatepass")


def _beyond(char: str) -> bool:
    return bool(char) and ord(char) >= _BEFORE_ASCII
