"""The connection to the providers: one client session, its TLS, its proxy, and the headers that go out.

The provider's key is put on here and nowhere else. Knows nothing of budgets.
"""

import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lists it for macOS only

import aiohttp

from inbounds.contracts.errors import OperatorError
from inbounds.gateway.allowed import REQUEST_HEADERS
from inbounds.gateway.config import Format, GatewayConfig, Proxy, Upstream

CONNECT_SECONDS = 30
SILENCE_SECONDS = 600  # a model may think for minutes before it says a byte
KEEPALIVE_SECONDS = 15  # well below providers' idle limits: a request on a dying connection would stay charged
CONNECTIONS_MAX = 128
ANTHROPIC_VERSION = "2023-06-01"
HEADER_CHARS_MAX = 2_000


class Forwarder:
    """Sends admitted bodies to their upstreams. `open` inside the event loop, `close` at the end."""

    def __init__(self, config: GatewayConfig) -> None:
        """Read certificates now, before the seal; OperatorError where the CA bundle can't be read."""
        try:
            self._tls = ssl.create_default_context(cafile=config.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise OperatorError(f"the CA bundle can't be read: {error}", where=str(config.ca_bundle)) from None
        self._proxies = {name: proxy_for(upstream, config.proxy) for name, upstream in config.upstreams.items()}
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the session; no cookies, no redirects, no environment, no decompression."""
        connector = aiohttp.TCPConnector(
            ssl=self._tls,
            limit=CONNECTIONS_MAX,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=aiohttp.ThreadedResolver(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def post(
        self, upstream: Upstream, wire: Format, target: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """POST to `target` (route and query); returns at the reply's headers. aiohttp.ClientError or TimeoutError."""
        assert self._session is not None, "the forwarder is open"
        return await self._session.post(
            upstream.url(target),
            data=body,
            headers=outgoing_headers(upstream, wire, headers),
            allow_redirects=False,
            proxy=self._proxies[upstream.name],
        )


def outgoing_headers(upstream: Upstream, wire: Format, headers: Mapping[str, str]) -> dict[str, str]:
    """The agent's allowed headers, ours, and the provider's key."""
    kept = {
        name: headers[name]
        for name in REQUEST_HEADERS[wire]
        if name in headers and len(headers[name]) <= HEADER_CHARS_MAX and headers[name].isprintable()
    }
    if wire is Format.MESSAGES:
        kept.setdefault("anthropic-version", ANTHROPIC_VERSION)
    return {
        **kept,
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",  # a reply must be read as it passes
        "User-Agent": "inbounds-gateway",
        upstream.auth_header: upstream.auth_prefix + upstream.key,
    }


def proxy_for(upstream: Upstream, proxy: Proxy) -> str | None:
    """The operator's proxy for this upstream, with NO_PROXY read as everybody else reads it."""
    parts = urlsplit(upstream.base_url)
    address = proxy.https if parts.scheme == "https" else proxy.http
    if not address or (proxy.no_proxy and proxy_bypass_environment(parts.netloc, {"no": proxy.no_proxy})):
        return None
    return address if "://" in address else f"http://{address}"


def ports(config: GatewayConfig) -> set[int]:
    """Every TCP port that this gateway has to reach; the seal forbids all others."""
    addresses = [upstream.base_url for upstream in config.upstreams.values()]
    addresses += [address for up in config.upstreams.values() if (address := proxy_for(up, config.proxy))]
    default = {"http": 80, "https": 443}
    found = [urlsplit(address) for address in addresses]
    return {parts.port or default.get(parts.scheme, 443) for parts in found}
