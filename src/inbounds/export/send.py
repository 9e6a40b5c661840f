"""Sends OTLP/JSON to a collector over HTTP: one POST a request, with a limit on time and size, following no redirect.

Knows nothing of what it sends. Runs in the process of the person who asked for it, never in a run's.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from inbounds.contracts.errors import HostError, OperatorError

TIMEOUT_S = 10.0  # OTLP's own default for an export
BODY_BYTES_MAX = 20 << 20  # a collector's default limit
ANSWER_BYTES_MAX = 64 << 10
URL_CHARS_MAX = 2_000
TRACES = "/v1/traces"  # the path that the OTLP specification gives where an endpoint names none


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A collector that points elsewhere does not get the traces sent there."""

    def redirect_request(  # urllib's signature
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow none: urllib then raises the redirect as an error."""
        del req, fp, code, msg, headers, newurl


def endpoint(url: str) -> str:
    """The address to POST to; OperatorError for anything but a plain http or https URL without a password."""
    plain = len(url) <= URL_CHARS_MAX and url.isascii() and url.isprintable() and " " not in url
    try:
        parts = urlsplit(url)
        good = plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.password is not None or parts.fragment:
        raise OperatorError(
            f"{url[:100]!r} is no address of a collector",
            where="--otlp",
            expected="http:// or https://, without a password",
            fix="inbounds export RUN --otlp http://127.0.0.1:4318",
        )
    return urlunsplit(parts._replace(path=TRACES)) if parts.path in ("", "/") else url


def post(url: str, requests: Iterable[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> int:
    """POST every request in order; returns how many. HostError at the first that is not taken whole."""
    opener = urllib.request.build_opener(_NoRedirect())
    sent = 0
    for request in requests:
        body = json.dumps(request, separators=(",", ":")).encode()
        if len(body) > BODY_BYTES_MAX:
            raise HostError(f"one request of {len(body)} bytes", expected=f"at most {BODY_BYTES_MAX}", where=url)
        asked = urllib.request.Request(  # noqa: S310 - `endpoint` lets http and https through only
            url, body, {"Content-Type": "application/json", "User-Agent": "inbounds"}, method="POST"
        )
        try:
            with opener.open(asked, timeout=timeout_s) as reply:
                answer = reply.read(ANSWER_BYTES_MAX)
        except urllib.error.HTTPError as error:
            what = f"redirects ({error.code}), which is not followed" if error.code < 400 else f"says HTTP {error.code}"  # noqa: PLR2004 - HTTP's errors
            error.close()
            raise HostError(f"the collector {what}", where=url, expected="HTTP 200") from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            raise HostError(f"the collector gave no answer: {error}"[:300], where=url, fix="--otlp-file FILE") from None
        _refuse_partial(answer, url)
        sent += 1
    return sent


def _refuse_partial(answer: bytes, url: str) -> None:
    """OTLP's partial success: HTTP 200 and spans refused all the same."""
    try:
        partial = json.loads(answer).get("partialSuccess") or {}
        rejected = int(partial.get("rejectedSpans") or 0)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return  # an empty or foreign body with HTTP 200 is an answer
    if rejected:
        why = str(partial.get("errorMessage", ""))[:200]
        raise HostError(f"the collector refused {rejected} spans: {why}", where=url)
