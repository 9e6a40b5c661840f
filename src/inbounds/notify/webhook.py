"""A notice to a webhook: one POST of five short strings, to an address that policy names and that is no trap.

HTTPS, or HTTP to the loopback; no redirect; the address is resolved once, checked, and that very address is connected
to (no second look-up that could answer otherwise: SSRF by DNS rebinding). Nothing secret is ever in the body.
"""

import http.client
import ipaddress
import json
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from inbounds.notify.notice import Message, Notice, Settings, plain

CHANNEL = "webhook"
URL_CHARS_MAX = 2_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Refused(Exception):
    """The address is not one that this program sends to."""


def send(settings: Settings, message: Message) -> Notice:
    """POST the message; every failure is a Notice."""
    try:
        url = _checked(settings.webhook)
        address, port = _resolve(url, settings)
        status = _post(url, address, port, json.dumps(message.as_json()).encode(), settings.timeout_s)
    except _Refused as refusal:
        return Notice(CHANNEL, False, f"refused: {refusal}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Notice(CHANNEL, False, plain(f"failed: {type(error).__name__}: {error}"))
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirects
        return Notice(CHANNEL, False, f"refused: it redirects ({status})")
    return Notice(CHANNEL, 200 <= status < 300, f"HTTP {status}")  # noqa: PLR2004 - HTTP's successes


def _checked(text: str) -> SplitResult:
    if len(text) > URL_CHARS_MAX or not text.isprintable() or " " in text or not text.isascii():
        raise _Refused("no plain URL")
    url = urlsplit(text)
    if url.scheme not in ("https", "http") or not url.hostname:
        raise _Refused("neither https nor loopback http")
    if url.username is not None or url.password is not None:
        raise _Refused("a password in the URL would stand in the contract")
    return url


def _resolve(url: SplitResult, settings: Settings) -> tuple[Address, int]:
    """The one address that is connected to; refused if any answer is private and not allowed by policy."""
    port = url.port or (443 if url.scheme == "https" else 80)
    answers = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(answer[4][0]).split("%", 1)[0]) for answer in answers]
    allowed = [ipaddress.ip_network(net, strict=False) for net in settings.private_allowed]
    for address in addresses:
        real = _inner(address)
        if real.is_loopback and url.scheme == "http":
            continue
        if any(real in net for net in allowed):
            continue
        if url.scheme == "http":
            raise _Refused("http only to the loopback")
        if not real.is_global or real.is_multicast:
            raise _Refused(f"{real} is not a public address")
    return addresses[0], port


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, NAT64 of RFC 6052, 6to4), or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _post(url: SplitResult, address: Address, port: int, body: bytes, timeout_s: int) -> int:
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            str(url.hostname), port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(str(url.hostname), port, timeout=timeout_s)

    # http.client asks this to connect: the name stays for TLS and the Host header, the address is the checked one.
    def connect(
        _: tuple[str, int], timeout: float | None = timeout_s, source: tuple[str, int] | None = None
    ) -> socket.socket:
        return socket.create_connection((str(address), port), timeout, source)

    connection._create_connection = connect  # type: ignore[attr-defined]  # noqa: SLF001 - its one hook for this
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"Content-Type": "application/json", "User-Agent": "inbounds", "Connection": "close"}
        connection.request("POST", target, body, headers)
        return connection.getresponse().status  # the reply's body is nobody's business
    finally:
        connection.close()
