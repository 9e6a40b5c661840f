"""Unexpected file types, by content (H16): what the base has nowhere like this, and what is not what its name says.

A kind is expected where the base has it under the same extension, or, for names without one, in the same directory. A
plan declares one by the file's exact path, or by "file type NAME" among its expected changes.
"""

import posixpath
from collections.abc import Iterator

from inbounds.judges.anomalies import hidden, polyglot
from inbounds.judges.anomalies.kinds import Kind, kind
from inbounds.judges.anomalies.material import Base, Changed, Material, Signal, extension, words

SAMPLES_MAX = 12  # base files of one extension that are looked into: enough to know a habit
_RULES = {"executable": "type_executable", "archive": "type_archive", "data": "type_data", "script": "type_script"}
_TEXTS = words(
    "adoc bash bat c cc cfg cjs clj cmake cmd conf cpp cs css csv cts cxx dart diff ex exs fish go gradle graphql"
    " h hpp htm html hs ini java js json json5 jsonc jsonl jsx kt less lua lock m map md mdx mjs mk ml mts patch"
    " php pl po pot properties proto ps1 pxd py pyi pyx r rb rs rst sass scala scss sh sql svelte svg swift tex tf"
    " toml ts tsv tsx txt vue xhtml xml yaml yml zig zsh"
)
_PICTURES = frozenset({"png", "jpg", "jpeg", "gif", "bmp", "ico", "webp", "tif", "tiff"})
_MEDIA = words("mp3 mp4 ogg wav flac avi webm pdf woff woff2 ttf otf psd")
_BOXES = words(
    "zip jar war ear apk aar whl egg gz tgz bz2 tbz xz txz zst lz4 7z rar tar cab rpm deb iso docx xlsx pptx odt"
    " ods odp doc xls ppt msi nupkg vsix crx xpi pickle pkl npz crate gem"
)
_CODE = words("a o so dll dylib exe pyd pyc pyo class jar wasm node bin lib elf com sys dex bc rlib")


class _Habits:
    """Which kinds the base has under an extension (without one: in a directory); listed when first asked."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._places: dict[str, list[str]] | None = None
        self._kinds: dict[str, set[str]] = {}

    def extensions(self) -> frozenset[str]:
        """Every extension of the base."""
        return frozenset(place[1:] for place in self._listed() if place.startswith("."))

    def have(self, path: str, found: Kind) -> bool:
        """Whether a sample of the base's files at this path's place has this kind."""
        place = _place(path)
        if place not in self._kinds:
            contents = (self._base.read(other) for other in self._listed().get(place, ()))
            self._kinds[place] = {kind(content).name for content in contents if content is not None}
        return found.name in self._kinds[place]

    def _listed(self) -> dict[str, list[str]]:
        if self._places is None:
            self._places = {}
            for path in self._base.paths:
                held = self._places.setdefault(_place(path), [])
                if len(held) < SAMPLES_MAX:
                    held.append(path)
        return self._places


def signals(material: Material) -> Iterator[Signal]:
    """Every rule of H16 over every changed file."""
    habits = _Habits(material.base)
    for change in material.changes:
        if not change.regular:
            continue
        if change.new is None:
            yield Signal("unread", change.path, f"{change.new_size} bytes: too large to be looked into")
            continue
        yield from _file(change, material, habits)


def _file(change: Changed, material: Material, habits: _Habits) -> Iterator[Signal]:
    assert change.new is not None
    found = kind(change.new)
    before = kind(change.old) if change.old is not None else None
    if found.family in {"text", "script"}:
        yield from hidden.signals(change)
    if found != before or change.old is None:
        yield from _named(change, found, material, habits)
    other = polyglot.second(change.new, found)
    if other and not (change.old is not None and before is not None and polyglot.second(change.old, before)):
        yield Signal("polyglot", change.path, other)


def _named(change: Changed, found: Kind, material: Material, habits: _Habits) -> Iterator[Signal]:
    false = _false_name(extension(change.path), found)
    if false:
        rule = "disguised_executable" if found.family == "executable" else "disguised"
        yield Signal(rule, change.path, f"its content is {found.name}, its name says {false}")
        return
    rule = _RULES.get(found.family, "")
    if rule == "type_script" and extension(change.path) in _TEXTS & habits.extensions():
        return  # a source file like others of the base, with a first line
    declared = material.declared
    if not rule or change.path in declared.paths or found.name in declared.types or habits.have(change.path, found):
        return
    place = (
        f".{extension(change.path)} files" if extension(change.path) else f"{posixpath.dirname(change.path) or '.'}/"
    )
    yield Signal(rule, change.path, f"{found.name} ({found.family}), which the base has nowhere among its {place}")


def _false_name(ext: str, found: Kind) -> str:
    """What the extension promises where the content is something else; "" where both agree or nothing is promised."""
    if found.family == "empty" or not ext:
        return ""
    if ext in _TEXTS:
        return "" if found.family in {"text", "script"} else f"text (.{ext})"
    if found.family == "executable":
        false = ext in _PICTURES | _MEDIA | (_BOXES - _CODE) and found.name != "jar"  # a jar is a box, if a special one
        return f".{ext}" if false else ""
    if ext in _PICTURES:
        return "" if found.family == "data" else f"a picture (.{ext})"
    if ext in _MEDIA:
        return f".{ext}" if found.family in {"archive", "script"} else ""
    if ext in _CODE and found.family in {"text", "script"} and ext in {"exe", "dll", "so", "pyc", "class", "jar"}:
        return f"compiled code (.{ext})"
    return ""


def _place(path: str) -> str:
    """What a file's kind is compared within: its extension, or its directory where it has none."""
    ext = extension(path)
    return f".{ext}" if ext else f"{posixpath.dirname(path)}/"
