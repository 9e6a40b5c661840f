"""Two formats in one content, and what stands behind the end of a picture (H16).

Each check says what it saw, or "". Only structures that a reader of the format would check itself; knows no paths.
"""

import re

from inbounds.judges.anomalies.kinds import Kind, is_text

_END = b"PK\x05\x06"
_END_BYTES = 22
_COMMENT_MAX = 65_535  # a zip's comment: how far from the end its directory's record may stand
_ACTIVE = re.compile(rb"<\?php|<script[\s>]|#!/(?:usr/)?bin/|\x7fELF[\x01\x02]", re.IGNORECASE)
_PICTURES = frozenset({"png", "jpeg", "gif", "bmp", "webp", "ico", "tiff"})
_BOXES = frozenset({"zip", "jar", "office"})
_TAIL_BYTES_MAX = 1 << 20


def second(data: bytes, kind: Kind) -> str:
    """What else this content is besides its kind, in words; "" for nothing."""
    if kind.name not in _BOXES and _ends_as_zip(data):
        return f"{kind.name}, and a zip archive from its end"
    if kind.name in _PICTURES:
        if is_text(data):
            return f"begins like {kind.name}, and is text throughout"
        tail = _behind(data, kind.name)
        if kind.name == "png" and tail:
            return f"{len(tail)} bytes behind the end of the picture"
        found = _ACTIVE.search(tail[:_TAIL_BYTES_MAX])
        if found:
            return f"{found[0][:12].decode('ascii', 'replace')!r} behind the end of the picture"
    if kind.name != "pdf" and kind.family in {"data", "archive"} and b"%PDF-" in data[1:1024]:
        return f"{kind.name}, and a PDF document from within its first kilobyte"
    return ""


def _ends_as_zip(data: bytes) -> bool:
    """A central directory's end whose comment reaches the file's end and whose directory lies where it says."""
    at = data.rfind(_END, max(0, len(data) - _END_BYTES - _COMMENT_MAX))
    if at < 0 or len(data) - at < _END_BYTES:
        return False
    size, comment = int.from_bytes(data[at + 12 : at + 16], "little"), int.from_bytes(data[at + 20 : at + 22], "little")
    if at + _END_BYTES + comment > len(data):
        return False
    return size == 0 or (size <= at and data.startswith(b"PK\x01\x02", at - size))


def _behind(data: bytes, name: str) -> bytes:
    """What follows the picture's own end; b"" where the end cannot be found (a broken picture carries nothing)."""
    if name == "png":
        at = 8
        while at <= len(data) - 12:
            length, tag = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            at += 12 + length
            if tag == b"IEND":
                return data[at:]
        return b""
    if name == "gif":
        end = data.rfind(b"\0;")
        return data[end + 2 :] if end >= 0 else b""
    if name == "jpeg":
        end = data.rfind(b"\xff\xd9")
        return data[end + 2 :] if end >= 0 else b""
    if name == "bmp":
        return data[int.from_bytes(data[2:6], "little") :]
    if name == "webp":
        return data[8 + int.from_bytes(data[4:8], "little") + 1 :]
    return b""
