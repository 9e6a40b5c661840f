"""`python -I -m inbounds.deps.proxy --control-fd N`: the build jail's only way out, to the package index and read-only.

GET and HEAD of index pages and of files that those pages named; no body, no query, no other host, no CONNECT (which
would let a build script publish). Every request is an event. Ends when the supervisor's end of the channel closes.
"""

import asyncio
import os
import re
import socket
import ssl
import sys
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inbounds.contracts.errors import EXIT_HOST, HostError, InboundsError, OperatorError
from inbounds.deps import pages
from inbounds.deps.rights import rights
from inbounds.deps.upstream import Upstream, load, port_of, ports, proxy_for, without_credentials
from inbounds.program import channel, entry
from inbounds.program.inbox import Inbox
from inbounds.program.seal import seal

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, web

CONNECT_SECONDS, IDLE_SECONDS, TOTAL_SECONDS = 30, 60, 900  # a 1 GB file at 10 Mbit/s takes 800 seconds
REDIRECTS_MAX = 5
PARALLEL_MAX = 32  # pip opens one connection, npm up to 15
CHUNK = 1 << 17
_PROJECT = re.compile(r"/simple/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/")
_PACKAGE = re.compile(r"/npm/((?:@[a-z0-9~._-]{1,128}(?:/|%2[fF]))?[A-Za-z0-9~_-][A-Za-z0-9~._-]{0,213})")
_FILE = re.compile(r"/files/([0-9]{1,9})/([A-Za-z0-9][A-Za-z0-9._+!~%-]{0,254})")
_FORMS = (pages.JSON_FORM, pages.HTML_FORM, "text/html")


class Refused(Exception):
    """An answer other than 200: `status` and why, for the client and the event."""

    def __init__(self, status: int, why: str) -> None:
        """Keep both."""
        self.status, self.why = status, why
        super().__init__(why)


class Cut(Exception):
    """A file broke off after its head was sent: the connection is closed, so that the client sees it is not whole."""

    def __init__(self, answer: "web.StreamResponse", why: str) -> None:
        """Keep the half-sent answer."""
        self.answer, self.why = answer, why
        super().__init__(why)


class Proxy:
    """Answers requests on the listeners it was given."""

    def __init__(self, upstream: Upstream, session: "ClientSession", say: Any) -> None:
        """`say` takes one event."""
        self.upstream, self.session, self.say = upstream, session, say
        self.named = pages.Named()
        self.requests = self.bytes = 0
        self._ports = ports(upstream)
        self._gate = asyncio.Semaphore(PARALLEL_MAX)

    async def handle(self, request: "web.BaseRequest") -> "web.StreamResponse":
        """One request: answered or refused, and told either way."""
        from aiohttp import ClientError, web

        started, before = time.monotonic(), self.bytes
        status, detail = 200, ""
        response: web.StreamResponse
        try:
            async with self._gate:
                self._admit(request)
                response = await self._answer(request)
                status = response.status
        except Refused as refused:
            status, detail = refused.status, refused.why
            response = web.Response(status=status, text=f"inbounds: {detail}\n")
        except Cut as cut:
            status, detail, response = 502, cut.why, cut.answer
            if request.transport is not None:
                request.transport.abort()
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            status, detail = 502, f"{type(error).__name__}: {without_credentials(str(error))[:300]}"
            response = web.Response(status=status, text=f"inbounds: the package index did not answer: {detail}\n")
        ms = int((time.monotonic() - started) * 1000)
        event = {
            "event": "request",
            "method": request.method[:16],
            "path": request.rel_url.raw_path[:512],
            "status": status,
        }
        self.say({**event, "bytes": self.bytes - before, "ms": ms, "detail": detail})
        return response

    def _admit(self, request: "web.BaseRequest") -> None:
        self.requests += 1
        if request.method not in {"GET", "HEAD"}:
            raise Refused(405, f"{request.method[:16]} is refused: packages can be fetched here, nothing can be sent")
        if (
            request.body_exists
            or request.headers.get("Content-Length", "0") != "0"
            or "Transfer-Encoding" in request.headers
        ):
            raise Refused(400, "a request with a body is refused")
        if request.rel_url.raw_query_string or "?" in request.raw_path:
            raise Refused(400, "a request with a query is refused")
        if self.requests > self.upstream.requests_max or self.bytes > self.upstream.total_bytes_max:
            raise Refused(403, "this build has fetched as much as it may")

    async def _answer(self, request: "web.BaseRequest") -> "web.StreamResponse":
        path = request.raw_path
        if match := _PROJECT.fullmatch(path):
            return await self._project(match[1], request)
        if match := _PACKAGE.fullmatch(path):
            return await self._package(match[1], request)
        if match := _FILE.fullmatch(path):
            address = self.named.address(int(match[1]), urllib.parse.unquote(match[2])) or self.named.address(
                int(match[1]), match[2]
            )
            if address is None:
                raise Refused(404, "no index page named this file")
            return await self._file(address, request)
        raise Refused(404, "no index page, package or named file")

    async def _project(self, name: str, request: "web.BaseRequest") -> "web.StreamResponse":
        from aiohttp import web

        address = f"{self.upstream.pip_index}/{name}/"
        accepted = request.headers.get("Accept", "")
        forms = [form for form in _FORMS if form in accepted] or ["text/html"]
        data, kind, base = await self._page(address, ", ".join(forms))
        if "json" in kind:
            body, kind = pages.simple_json(data, base, self.named), pages.JSON_FORM
        else:
            body, kind = pages.simple_html(data, base, self.named), "text/html"
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _package(self, name: str, request: "web.BaseRequest") -> "web.StreamResponse":
        from aiohttp import web

        name = urllib.parse.unquote(name)
        address = f"{self.upstream.npm_registry}/{name.replace('/', '%2f')}"
        brief = "application/vnd.npm.install-v1+json"
        form = (
            f"{brief}; q=1.0, application/json; q=0.8"
            if brief in request.headers.get("Accept", "")
            else "application/json"
        )
        data, _, base = await self._page(address, form)
        local = request.transport.get_extra_info("sockname") if request.transport else ("127.0.0.1", 0)
        # the listener stands in the jail's network namespace: its own address is what the client reached
        body = pages.packument(data, base, self.named, f"http://{local[0]}:{local[1]}")
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    async def _page(self, address: str, accept: str) -> tuple[bytes, str, str]:
        response = await self._fetch(address, accept)
        try:
            data = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK):
                data += chunk
                if len(data) > pages.PAGE_BYTES_MAX:
                    raise Refused(502, f"the index page is larger than {pages.PAGE_BYTES_MAX} bytes")
            self.bytes += len(data)
            return bytes(data), response.headers.get("Content-Type", ""), str(response.url)
        finally:
            response.release()

    async def _file(self, address: str, request: "web.BaseRequest") -> "web.StreamResponse":
        from aiohttp import ClientError, web

        response = await self._fetch(address, "*/*")
        try:
            headers = {"Content-Type": "application/octet-stream"}
            size = response.content_length
            if size is not None and "Content-Encoding" not in response.headers:
                if size > self.upstream.file_bytes_max:
                    raise Refused(403, f"the file has {size} bytes, at most {self.upstream.file_bytes_max}")
                headers["Content-Length"] = str(size)
            answer = web.StreamResponse(headers=headers)
            await answer.prepare(request)
            try:
                await self._stream(response, answer)
            except (ClientError, OSError, TimeoutError, ValueError) as error:
                raise Cut(answer, f"cut: {type(error).__name__}: {str(error)[:200]}") from error
            return answer
        finally:
            response.release()

    async def _stream(self, response: "ClientResponse", answer: "web.StreamResponse") -> None:
        sent = 0
        async for chunk in response.content.iter_chunked(CHUNK):
            sent += len(chunk)
            self.bytes += len(chunk)
            if sent > self.upstream.file_bytes_max or self.bytes > self.upstream.total_bytes_max:
                raise ValueError(f"more than {self.upstream.file_bytes_max} bytes, or than this build may fetch")
            await answer.write(chunk)
        await answer.write_eof()

    async def _fetch(self, address: str, accept: str) -> "ClientResponse":
        """GET with redirects followed by hand: no step from https to http, credentials to the index's host only."""
        first = urllib.parse.urlsplit(address)
        for _ in range(REDIRECTS_MAX + 1):
            parts = urllib.parse.urlsplit(address)
            if parts.scheme not in {"http", "https"} or (first.scheme == "https" and parts.scheme != "https"):
                raise Refused(502, "the index redirects away from https")
            proxy = proxy_for(address, self.upstream.proxies)
            if proxy is None and port_of(address) not in self._ports:
                raise Refused(
                    502, f"the index leads to port {port_of(address)}, which is neither its own nor the web's"
                )
            from yarl import URL

            response = await self.session.get(
                URL(without_credentials(address), encoded=True),
                headers={"Accept": accept, **self._credentials(parts)},
                proxy=proxy,
                allow_redirects=False,
            )
            if response.status == 200:  # noqa: PLR2004 - the status itself
                return response
            response.release()
            if response.status not in {301, 302, 303, 307, 308} or "Location" not in response.headers:
                status = response.status if response.status in {403, 404, 410} else 502
                raise Refused(status, f"the package index answered {response.status}")
            address = urllib.parse.urljoin(without_credentials(address), response.headers["Location"])
        raise Refused(502, f"more than {REDIRECTS_MAX} redirects")

    def _credentials(self, parts: urllib.parse.SplitResult) -> dict[str, str]:
        from aiohttp import BasicAuth

        for known in (self.upstream.pip_index, self.upstream.npm_registry):
            own = urllib.parse.urlsplit(known)
            same = (own.scheme, own.hostname, own.port) == (parts.scheme, parts.hostname, parts.port)
            if same and own.username is not None:
                user, password = urllib.parse.unquote(own.username), urllib.parse.unquote(own.password or "")
                return {"Authorization": BasicAuth(user, password).encode()}
        return {}


async def _serve(upstream: Upstream, context: ssl.SSLContext, control: socket.socket, sealed: dict[str, str]) -> None:
    """Take listeners until told to stop or until the supervisor is gone."""
    from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

    timeout = ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS)
    connector = TCPConnector(ssl=context, limit=PARALLEL_MAX)
    inbox = Inbox(control)

    def say(event: Mapping[str, Any]) -> None:
        try:
            channel.send(control, event)
        except OSError:
            inbox.end()  # nobody hears what is fetched: nothing is fetched any more

    async with ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        proxy = Proxy(upstream, session, say)
        runner = web.ServerRunner(web.Server(proxy.handle, access_log=None, max_line_size=4096, max_headers=64))
        await runner.setup()
        say({"event": "ready", "pid": os.getpid(), "seal": sealed, **upstream.shown()})
        async for message in inbox:
            op = message.body.get("op")
            if op == "attach" and len(message.descriptors) == 1:
                await web.SockSite(runner, socket.socket(fileno=message.descriptors[0])).start()
                say({"event": "attached"})
                continue
            message.close()
            if op == "stop":
                break
            say({"event": "unknown_op", "op": str(op)[:100]})
        await runner.cleanup()


def _trusted(ca_file: str) -> ssl.SSLContext:
    """The certificates to trust, read before the seal."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(f"the certificates of the package index can't be read: {error}", where=ca_file) from None


def serve(control: socket.socket, begun: dict[str, str]) -> int:
    """Serve one build over the control channel; returns the exit code. `begun` is what `seal.begin` found."""
    from aiohttp import web

    assert web  # imported before the seal, as it reads files at once (/etc/mime.types)
    received = entry.first_message(control)
    if received is None:
        return EXIT_HOST
    try:
        upstream = load(received.body.get("upstream"))
        context = _trusted(upstream.ca_file)
        sealed = begun | seal(rights(ports(upstream)))
        try:
            asyncio.run(_serve(upstream, context, control, sealed))
        except OSError as error:
            raise HostError(f"the proxy failed: {error}") from error
    except InboundsError as error:
        channel.send(control, {"event": "failed", "exit": error.exit_code, **error.facts()})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(entry.main("inbounds.deps.proxy", serve))
