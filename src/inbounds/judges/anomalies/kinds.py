"""What a content is, by its bytes alone: compiled code, archive, data, script or text (H16).

Signatures from the formats' own specifications, with a second look where a signature is short. No library: those at
hand know hundreds of kinds by their first bytes, and none of what matters here (what stands behind the end of a file,
text that only begins like a picture). Knows nothing of paths.
"""

import re
from dataclasses import dataclass
from typing import Literal

Family = Literal["executable", "archive", "data", "script", "text", "empty"]
HEAD_BYTES = 64 << 10  # enough for every signature and for telling text from binary
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Kind:
    """A format's name, and the family that decides which rule it concerns."""

    name: str
    family: Family


_SIGNATURES: tuple[tuple[int, bytes, str, Family], ...] = (
    (0, b"\x7fELF", "elf", "executable"),
    (0, b"\xfe\xed\xfa\xce", "mach-o", "executable"),
    (0, b"\xfe\xed\xfa\xcf", "mach-o", "executable"),
    (0, b"\xce\xfa\xed\xfe", "mach-o", "executable"),
    (0, b"\xcf\xfa\xed\xfe", "mach-o", "executable"),
    (0, b"\0asm", "wasm", "executable"),
    (0, b"dex\n0", "dex", "executable"),
    (0, b"BC\xc0\xde", "llvm-bitcode", "executable"),
    (0, b"\x1bLua", "lua-bytecode", "executable"),
    (0, b"!<arch>\n", "ar", "executable"),
    (0, b"PK\x03\x04", "zip", "archive"),
    (0, b"PK\x05\x06", "zip", "archive"),
    (0, b"\x1f\x8b\x08", "gzip", "archive"),
    (0, b"\xfd7zXZ\0", "xz", "archive"),
    (0, b"\x28\xb5\x2f\xfd", "zstd", "archive"),
    (0, b"\x04\x22\x4d\x18", "lz4", "archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", "archive"),
    (0, b"Rar!\x1a\x07", "rar", "archive"),
    (0, b"MSCF\0\0\0\0", "cab", "archive"),
    (0, b"\xed\xab\xee\xdb", "rpm", "archive"),
    (0, b"xar!", "xar", "archive"),
    (0, b"hsqs", "squashfs", "archive"),
    (0, b"070701", "cpio", "archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole", "archive"),
    (257, b"ustar", "tar", "archive"),
    (0x8001, b"CD001", "iso", "archive"),
    (0, b"\x89PNG\r\n\x1a\n", "png", "data"),
    (0, b"\xff\xd8\xff", "jpeg", "data"),
    (0, b"GIF87a", "gif", "data"),
    (0, b"GIF89a", "gif", "data"),
    (0, b"II*\0", "tiff", "data"),
    (0, b"MM\0*", "tiff", "data"),
    (0, b"\0\0\1\0", "ico", "data"),
    (0, b"8BPS", "psd", "data"),
    (0, b"%PDF-", "pdf", "data"),
    (0, b"wOFF", "woff", "data"),
    (0, b"wOF2", "woff", "data"),
    (0, b"OTTO", "font", "data"),
    (0, b"\0\1\0\0", "font", "data"),
    (0, b"SQLite format 3\0", "sqlite", "data"),
    (0, b"\x93NUMPY", "numpy", "data"),
    (0, b"PAR1", "parquet", "data"),
    (0, b"OggS", "ogg", "data"),
    (0, b"fLaC", "flac", "data"),
    (0, b"ID3", "mp3", "data"),
    (4, b"ftyp", "mp4", "data"),
    (0, b"\xde\x12\x04\x95", "gettext", "data"),
    (0, b"\x95\x04\x12\xde", "gettext", "data"),
)
_FIRST = frozenset(signature[0] for at, signature, _, _ in _SIGNATURES if at == 0)
_TEXT, _EMPTY, _BINARY = Kind("text", "text"), Kind("empty", "empty"), Kind("binary", "data")
_SHEBANG = re.compile(rb"#![ \t]*(?:\S*/)?env[ \t]+(?:-\S+[ \t]+)*(?:\w+=\S*[ \t]+)*(\S{1,80})|#![ \t]*(\S{1,200})")
_PYC_HEADER = 16  # PEP 552
_PYC_MAGIC = range(3000, 4000)  # CPython 3.0 to beyond 3.15
_PE_MIN = 64
_CLASS_MIN = 45  # Java's first class file version; below it the number is a count of architectures


def kind(data: bytes) -> Kind:
    """The kind of a content."""
    if not data:
        return _EMPTY
    found = _signed(data)
    if found is not None:
        return found
    if data.startswith(b"#!") and (match := _SHEBANG.match(data)) and is_text(data):
        interpreter = (match[1] or match[2]).rsplit(b"/", 1)[-1].decode("ascii", "replace").lower()
        return Kind("script:" + re.sub(r"[\d.]+$", "", interpreter), "script")
    return _TEXT if is_text(data) else _BINARY


def is_text(data: bytes) -> bool:
    """Whether this is text: UTF-8, UTF-16 with its mark, or an older encoding without control characters."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return len(data) % 2 == 0 and _decodes(data, "utf-16")
    if b"\0" in data:
        return False
    if _decodes(data, "utf-8"):
        return len(_CONTROL.findall(data[:HEAD_BYTES])) * 20 <= min(len(data), HEAD_BYTES)  # a few form feeds and such
    head = data[:HEAD_BYTES]
    high = sum(byte >= 0x80 for byte in head)  # noqa: PLR2004 - beyond ASCII
    return not _CONTROL.search(head) and high * 3 <= len(head)  # Latin-1 prose has one accent in three letters at most


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _signed(data: bytes) -> Kind | None:
    if data[0] in _FIRST or len(data) > 257:  # noqa: PLR2004 - the tar signature's place
        for at, signature, name, family in _SIGNATURES:
            if data.startswith(signature, at):
                if name in {
                    "xar",
                    "psd",
                    "cpio",
                    "parquet",
                    "ogg",
                    "flac",
                    "mp3",
                    "font",
                    "woff",
                    "squashfs",
                } and is_text(data):
                    continue  # a short signature of letters: prose may begin like this
                return _inside(data) if name == "zip" else Kind(name, family)
    if data.startswith(b"\xca\xfe\xba\xbe") and len(data) >= 8:  # noqa: PLR2004 - the header
        version = int.from_bytes(data[6:8], "big")
        return Kind("java-class" if version >= _CLASS_MIN else "mach-o", "executable")
    if data.startswith(b"MZ") and len(data) >= _PE_MIN and not is_text(data):
        at = int.from_bytes(data[0x3C:0x40], "little")
        return Kind("pe" if data.startswith(b"PE\0\0", at) else "dos", "executable")
    if data[2:4] == b"\r\n" and len(data) >= _PYC_HEADER and int.from_bytes(data[:2], "little") in _PYC_MAGIC:
        return Kind("python-bytecode", "executable")
    if re.match(rb"BZh[1-9]1AY&SY", data):
        return Kind("bzip2", "archive")
    if data[0] == 0x80 and data[1:2] in {b"\2", b"\3", b"\4", b"\5"} and data.endswith(b"."):  # noqa: PLR2004 - PROTO
        return Kind("pickle", "archive")
    if data.startswith(b"RIFF") and data[8:12] in {b"WEBP", b"WAVE", b"AVI "}:
        return Kind({b"WEBP": "webp", b"WAVE": "wav"}.get(data[8:12], "avi"), "data")
    if data.startswith(b"BM") and int.from_bytes(data[2:6], "little") == len(data):
        return Kind("bmp", "data")
    return None


def _inside(data: bytes) -> Kind:
    """What kind of zip: compiled Java is code, whatever the box."""
    if b"META-INF/MANIFEST.MF" in data[:HEAD_BYTES] or b"classes.dex" in data[:HEAD_BYTES] or b".class" in data[:1024]:
        return Kind("jar", "executable")
    if b"[Content_Types].xml" in data[:1024] or data[38:80].startswith(b"application/vnd.oasis"):
        return Kind("office", "archive")
    return Kind("zip", "archive")
