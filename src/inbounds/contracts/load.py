"""Reading a contract file once: bytes to a frozen model, or an error with file, line, found, expected and fix.

YAML anchors, duplicate keys and files over a size limit are refused (a contract needs none of them). JSON plans go the
same way, because JSON is read by the same parser with line numbers.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from inbounds.contracts.errors import OperatorError

Model = TypeVar("Model", bound=msgspec.Struct)

FILE_BYTES_MAX = 1 << 20  # a contract is read by people; a megabyte is not
DEPTH_MAX = 20  # the models nest four deep

_AT = re.compile(r" - at `(?P<path>\$[^`]*)`")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def load(path: Path, model: type[Model], *, shown: str = "", fix: str = "") -> Model:
    """Read and parse one file; OperatorError names file and line."""
    shown = shown or str(path)
    try:
        with path.open("rb") as file:
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
        message = str(error)
        at = _AT.search(message)
        unknown = _UNKNOWN.search(message)
        at_path = (at["path"] if at else "$") + (f".{unknown[1]}" if unknown else "")
        line = _line_of(node, at_path)
        found = _AT.sub("", message)
        raise OperatorError(
            f"{found}{' at ' + at['path'].removeprefix('$').lstrip('.') if at else ''}",
            where=f"{shown}:{line}",
            expected=f"a {model.__name__.lower()} as in docs/schemas/{model.__name__.lower()}.schema.json",
            fix="inbounds check",
        ) from None


def line_of(raw: bytes, path: str) -> int:
    """The 1-based line of a msgspec path such as "$.limits.iterations" in a file already known to parse."""
    node, _ = _compose(raw, "")
    return _line_of(node, path)


def _compose(raw: bytes, shown: str) -> tuple[yaml.Node, Any]:
    try:
        text = raw.decode("utf-8")
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
                line = token.start_mark.line + 1
                raise OperatorError(
                    "an anchor, alias or tag", where=f"{shown}:{line}", expected="plain values written out"
                )
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        if node is None:
            raise OperatorError("the file is empty", where=shown, expected="a contract", fix="inbounds init")
        _refuse_odd(node, shown, 0)
        return node, yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise OperatorError(f"not valid YAML or JSON: {error.problem}", where=f"{shown}:{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise OperatorError(f"not valid YAML or JSON: {error}", where=shown) from None


def _refuse_odd(node: yaml.Node, shown: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise OperatorError(f"nested deeper than {DEPTH_MAX}", where=f"{shown}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                where = f"{shown}:{key.start_mark.line + 1}"
                raise OperatorError(f"the key {key.value!r} stands twice", where=where, expected="each key once")
            seen.add(key.value)
            _refuse_odd(value, shown, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_odd(value, shown, depth + 1)


def _line_of(node: yaml.Node, path: str) -> int:
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
    return int(node.start_mark.line) + 1
