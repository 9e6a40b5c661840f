"""Index pages as a proxy hands them on: every file's address replaced by one of the proxy's own, and remembered.

Pure. Reads the HTML and JSON forms of the simple API (PEP 503, 691, 658) and npm's packuments. Knows nothing of HTTP.
"""

import html
import json
import posixpath
import re
import urllib.parse
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

FILES_MAX = 2_000_000  # addresses remembered by one build; boto3 alone has 4,000
PAGE_BYTES_MAX = 64 << 20  # the largest packuments are about 30 MB
JSON_FORM, HTML_FORM = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"


class BadPageError(ValueError):
    """The upstream's page is none that can be handed on."""


@dataclass(slots=True)
class Named:
    """The addresses that index pages named: `number` of each is what the proxy serves it under."""

    addresses: list[str] = field(default_factory=list)
    metadata: set[int] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, address: str, base: str) -> tuple[int, str]:
        """Remember an address (relative ones against `base`): its number and the file's bare name."""
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, address))
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise BadPageError(f"a page names {parts.scheme or 'no scheme'}:, expected http or https")
        if urllib.parse.urlsplit(base).scheme == "https" and parts.scheme != "https":
            raise BadPageError("a page fetched over https names a file over http")
        plain = urllib.parse.urlunsplit(parts._replace(fragment=""))
        if plain not in self._numbers:
            if len(self.addresses) >= FILES_MAX:
                raise BadPageError(f"more than {FILES_MAX} files named")
            self._numbers[plain] = len(self.addresses)
            self.addresses.append(plain)
        return self._numbers[plain], posixpath.basename(parts.path)

    def address(self, number: int, name: str) -> str | None:
        """What the proxy may fetch for /files/<number>/<name>, or None."""
        if not 0 <= number < len(self.addresses):
            return None
        known = self.addresses[number]
        bare = posixpath.basename(urllib.parse.urlsplit(known).path)
        if name == bare:
            return known
        if name == bare + ".metadata" and number in self.metadata:
            parts = urllib.parse.urlsplit(known)
            return urllib.parse.urlunsplit(parts._replace(path=parts.path + ".metadata"))
        return None


def simple_json(data: bytes, base: str, named: Named) -> bytes:
    """A project page in PEP 691's JSON with its files' addresses replaced by paths of the proxy."""
    page = _json(data)
    files = page.get("files")
    if not isinstance(files, list):
        raise BadPageError("a project page without files")
    for entry in files:
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            raise BadPageError("a file without an address")
        number, name = named.number(entry["url"], base)
        entry["url"] = f"/files/{number}/{name}"
        if entry.get("core-metadata") or entry.get("dist-info-metadata") or entry.get("data-dist-info-metadata"):
            named.metadata.add(number)
    return json.dumps(page).encode()


def simple_html(data: bytes, base: str, named: Named) -> bytes:
    """A project page in PEP 503's HTML, written anew from its links alone."""
    reader = _Links()
    reader.feed(data.decode("utf-8", "replace"))
    reader.close()
    rows = []
    for attributes, text in reader.links:
        address, _, fragment = attributes.pop("href").partition("#")
        number, name = named.number(address, base)
        kept = {k: v for k, v in attributes.items() if k.startswith("data-")}
        if kept.keys() & {"data-core-metadata", "data-dist-info-metadata"}:
            named.metadata.add(number)
        anchor = f"#{fragment}" if re.fullmatch(r"[a-z0-9]+=[0-9a-fA-F]+", fragment) else ""
        more = "".join(f' {k}="{html.escape(v)}"' for k, v in sorted(kept.items()))
        rows.append(f'<a href="/files/{number}/{html.escape(name)}{anchor}"{more}>{html.escape(text)}</a><br/>')
    head = '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body>'
    return (head + "\n".join(rows) + "</body></html>").encode()


def packument(data: bytes, base: str, named: Named, own: str) -> bytes:
    """Npm's document of a package, full or abbreviated, with each tarball's address replaced by one below `own`."""
    page = _json(data)
    versions = page.get("versions")
    if not isinstance(versions, dict):
        raise BadPageError("a package document without versions")
    for entry in versions.values():
        dist = entry.get("dist") if isinstance(entry, dict) else None
        if not isinstance(dist, dict) or not isinstance(dist.get("tarball"), str):
            raise BadPageError("a version without a tarball")
        number, name = named.number(dist["tarball"], base)
        dist["tarball"] = f"{own}/files/{number}/{name}"
    return json.dumps(page).encode()


def _json(data: bytes) -> dict[str, Any]:
    try:
        page = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadPageError(f"no JSON: {error}") from None
    if not isinstance(page, dict):
        raise BadPageError("no JSON object")
    return page


class _Links(HTMLParser):
    """Collects (attributes, text) of every link."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[tuple[dict[str, str], str]] = []
        self._open: dict[str, str] | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A link begins."""
        if tag == "a" and any(name == "href" and value for name, value in attrs):
            self._open, self._text = {name: value or "" for name, value in attrs}, ""

    def handle_data(self, data: str) -> None:
        """A link's text."""
        if self._open is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        """A link ends."""
        if tag == "a" and self._open is not None:
            self.links.append((self._open, self._text.strip()))
            self._open = None
