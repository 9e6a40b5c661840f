"""Reading a contract file once: bytes to a frozen model, or an error with file, line, found, expected and fix.

YAML anchors, tags, merges, duplicate keys, deep nesting and files over a size limit are refused (a contract needs none
of them). JSON plans go the same way, because JSON is read by the same parser with line numbers.
"""

import difflib
import os
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect
import yaml

from inbounds.contracts.errors import OperatorError

Model = TypeVar("Model", bound=msgspec.Struct)

FILE_BYTES_MAX = 1 << 20  # a contract is read by people; a megabyte is not
DEPTH_MAX = 20  # the models nest four deep
SCHEMAS = "inbounds/contracts/schemas"  # shipped with the package (B14), written by tools/schemas.py

_AT = re.compile(r" - at `(?P<path>\$[^`]*)`")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")

_OPENING = (
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


class _Loader(yaml.CSafeLoader):
    """YAML without dates: nothing in a contract is one, and an impossible date is a crash, not a value."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute, replaced and never changed
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
        for first, forms in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def load(path: Path, model: type[Model], *, shown: str = "", fix: str = "") -> Model:
    """Read and parse one file; OperatorError names file and line."""
    shown = shown or str(path)
    try:
        # through no link and waiting for nobody: the file may be an agent's work, and errors quote what was read
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OperatorError("is no regular file", where=shown, expected="a contract file")
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise OperatorError(
            "the file is missing", where=shown, expected="a contract file", fix=fix or "inbounds init"
        ) from None
    except OSError as error:
        raise OperatorError(f"cannot be read: {error.strerror}", where=shown, expected="a readable file") from None
    return parse(raw, model, shown=shown)


def parse(raw: bytes, model: type[Model], *, shown: str) -> Model:
    """Parse bytes as YAML or JSON into `model`."""
    if len(raw) > FILE_BYTES_MAX:
        raise OperatorError(f"larger than {FILE_BYTES_MAX} bytes", where=shown, expected="a contract that people read")
    node, value = _compose(raw, shown)
    try:
        return msgspec.convert(value, model, strict=True)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), node, model, shown) from None


def _refusal(message: str, node: yaml.Node, model: type[msgspec.Struct], shown: str) -> OperatorError:
    """What msgspec says, with the line it means and what would be right there."""
    at = _AT.search(message)
    path = at["path"] if at else "$"
    found = _AT.sub("", message)
    unknown = _UNKNOWN.search(message)
    name = model.__name__.lower()
    expected, fix = f"a {name} as in {SCHEMAS}/{name}.schema.json", "inbounds check"
    if unknown:
        known = _keys(model, path)
        close = difflib.get_close_matches(unknown[1], known, 1)
        expected = f"one of the keys {', '.join(known)}" if known else expected
        fix = f"{close[0]}: … instead of {unknown[1]}: …" if close else fix
    elif found.endswith("got `float`"):
        expected = 'a whole number, or an amount in quotes such as "0.25"'
    inside = path.removeprefix("$").lstrip(".")
    return OperatorError(
        f"{found} at {inside}" if inside else found,
        where=f"{shown}:{_line_of(node, path, unknown[1] if unknown else None)}",
        expected=expected,
        fix=fix,
    )


def _keys(model: type[msgspec.Struct], path: str) -> list[str]:
    """The keys that the mapping at `path` may have; [] where that is no model of ours."""
    kind: msgspec.inspect.Type = msgspec.inspect.type_info(model)
    for step in _STEP.finditer(path):
        if step[1] is not None and isinstance(kind, msgspec.inspect.StructType):
            kind = next((f.type for f in kind.fields if f.encode_name == step[1]), msgspec.inspect.AnyType())
        elif step[2] is not None and isinstance(kind, msgspec.inspect.VarTupleType):
            kind = kind.item_type
        if isinstance(kind, msgspec.inspect.UnionType):
            kind = next((t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType)), kind)
    return [f.encode_name for f in kind.fields] if isinstance(kind, msgspec.inspect.StructType) else []


def line_of(raw: bytes, path: str) -> int:
    """The 1-based line of a msgspec path such as "$.limits.iterations" in a file already known to parse."""
    node, _ = _compose(raw, "")
    return _line_of(node, path)


def _compose(raw: bytes, shown: str) -> tuple[yaml.Node, Any]:
    try:
        text = raw.decode("utf-8")
        _refuse_tokens(text, shown)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise OperatorError("the file is empty", where=shown, expected="a contract", fix="inbounds init")
        _refuse_keys(node, shown)
        return node, yaml.load(text, Loader=_Loader)  # noqa: S506 - a CSafeLoader with fewer resolvers
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise OperatorError(
            f"not valid YAML or JSON: {error.problem}", where=f"{shown}:{line}", expected="one YAML or JSON document"
        ) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise OperatorError("not UTF-8", where=f"{shown}:{line}", expected="text in UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise OperatorError(f"not valid YAML or JSON: {said}", where=shown, expected="plain text values") from None


def _refuse_tokens(text: str, shown: str) -> None:
    """Before anything recursive sees the text: libyaml's composer overflows its stack on deep nesting."""
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        where = f"{shown}:{token.start_mark.line + 1}"
        if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
            raise OperatorError("an anchor, alias or tag", where=where, expected="plain values written out")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEPTH_MAX:
            raise OperatorError(f"nested deeper than {DEPTH_MAX}", where=where, expected="what the schemas describe")


def _refuse_keys(node: yaml.Node, shown: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{shown}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise OperatorError("a key that is no plain text", where=where, expected="text as key")
            if key.value in seen:
                raise OperatorError(f"the key {key.value!r} stands twice", where=where, expected="each key once")
            seen.add(key.value)
            _refuse_keys(value, shown)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_keys(value, shown)


def _line_of(node: yaml.Node, path: str, key: str | None = None) -> int:
    """The line of a msgspec path, or of the key `key` in the mapping there (an unknown one may have any spelling)."""
    for step in _STEP.finditer(path):
        name, index = step[1], step[2]
        if name is not None and isinstance(node, yaml.MappingNode):
            match = next(((k, v) for k, v in node.value if k.value == name), None)
            if match is None:
                break
            if not isinstance(match[1], (yaml.MappingNode, yaml.SequenceNode)):
                return int(match[0].start_mark.line) + 1
            node = match[1]
        elif (
            index is not None
            and isinstance(node, yaml.SequenceNode)
            and index.isdigit()
            and int(index) < len(node.value)
        ):
            node = node.value[int(index)]
        else:
            break
    if key is not None and isinstance(node, yaml.MappingNode):
        node = next((k for k, _ in node.value if k.value == key), node)
    return int(node.start_mark.line) + 1
