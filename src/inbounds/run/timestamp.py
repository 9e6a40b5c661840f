"""An outside witness for a checkpoint: an RFC 3161 time-stamp over its note, where policy names an authority.

Asked and verified by the openssl command in an environment of its own; the authority is untrusted, and what
goes out is a hash. A witness that fails is a value for the journal, never a stop. Knows nothing of runs or journals.
"""

import base64
import http.client
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

SECONDS_MAX = 5.0  # all of it: a checkpoint's witness must not hold a run up
REPLY_BYTES_MAX = 64 << 10  # a token with its certificate chain has three to eight kilobytes
NOTE_BYTES_MAX = 64 << 10
URL_CHARS_MAX = 2_000
WHY_CHARS_MAX = 300
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REQUEST_TYPE, REPLY_TYPE = "application/timestamp-query", "application/timestamp-reply"  # RFC 3161, 3.4
_TIME = re.compile(r"^Time stamp: (\w{3} [ \d]\d \d\d:\d\d:\d\d)(?:\.\d+)? (\d{4}) GMT$", re.MULTILINE)
HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class Stamp:
    """What became of one request: `token` is the authority's whole reply (DER in base64), "" where there is none.

    `verified` says that it holds for the note under the CA file; without a CA file it is kept unverified. `at_ms` is
    the authority's own time. `why` says what failed.
    """

    url: str
    token: str = ""
    verified: bool = False
    at_ms: int = 0
    why: str = ""

    def as_record(self) -> dict[str, object]:
        """The journal's form."""
        return {
            "url": self.url,
            "ok": bool(self.token) and not self.why,
            "verified": self.verified,
            "token": self.token,
            "stamped_at_ms": self.at_ms,
            "why": self.why,
        }


class _Failed(Exception):
    """No time-stamp, and why not."""


def stamp(url: str, note: str, ca_file: str | None = None) -> Stamp:
    """Have `note` stamped by the authority at `url`, and verify the answer with `ca_file` (PEM; policy's).

    Takes SECONDS_MAX at most. Every failure, a missing openssl included, is a Stamp with `why`; nothing is raised.
    """
    deadline = time.monotonic() + SECONDS_MAX
    try:
        parts = _checked(url)
        with tempfile.TemporaryDirectory(prefix="inbounds-stamp-") as place:
            at = Path(place)
            _put(at / "note", note.encode())
            _openssl(["ts", "-query", "-data", "note", "-sha256", "-cert", "-out", "query"], at, deadline)
            (at / "reply").write_bytes(reply := _post(parts, (at / "query").read_bytes(), deadline))
            told = _granted(_openssl(["ts", "-reply", "-in", "reply", "-text"], at, deadline))
            token = base64.b64encode(reply).decode()
            if ca_file is None:
                return Stamp(url, token, at_ms=_time_of(told))
            # by the query, so that hash and nonce are compared: an old answer is none
            _verify(["-queryfile", "query"], ca_file, at, deadline)
            return Stamp(url, token, verified=True, at_ms=_time_of(told))
    except (_Failed, OSError, http.client.HTTPException, ValueError) as error:
        return Stamp(url[:URL_CHARS_MAX], why=_shown(error))


def check(note: str, token: str, ca_file: str) -> str:
    """Whether a kept token holds for `note` under a CA file, offline: "" or why not."""
    deadline = time.monotonic() + SECONDS_MAX
    try:
        reply = base64.b64decode(token[: 2 * REPLY_BYTES_MAX], validate=True)
        with tempfile.TemporaryDirectory(prefix="inbounds-stamp-") as place:
            at = Path(place)
            _put(at / "note", note.encode())
            (at / "reply").write_bytes(reply)
            _verify(["-data", "note"], ca_file, at, deadline)
    except (_Failed, OSError, ValueError) as error:
        return _shown(error)
    return ""


def _put(path: Path, content: bytes) -> None:
    if len(content) > NOTE_BYTES_MAX:
        raise _Failed(f"a note of {len(content)} bytes")
    path.write_bytes(content)


def _granted(told: str) -> str:
    if "Status: Granted" not in told:
        raise _Failed(f"the authority refuses: {' '.join(told.split())}")
    return told


def _verify(what: list[str], ca_file: str, at: Path, deadline: float) -> None:
    trusted = os.path.abspath(ca_file)
    if not os.path.isfile(trusted):
        raise _Failed(f"no CA file {ca_file}")
    told = _openssl(["ts", "-verify", *what, "-in", "reply", "-CAfile", trusted], at, deadline)
    if "Verification: OK" not in told:
        raise _Failed("openssl does not say that it holds")


def _time_of(told: str) -> int:
    """The authority's time, in milliseconds since 1970; 0 where openssl's words are not understood."""
    found = _TIME.search(told)
    if found is None:
        return 0
    when = datetime.strptime(f"{found[1]} {found[2]}", "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return int(when.timestamp()) * 1000


def _openssl(args: list[str], at: Path, deadline: float) -> str:
    """What openssl says; _Failed where it fails. No configuration, variable or default CA of the host's counts."""
    program = shutil.which("openssl", path=SEARCH)
    if program is None:
        raise _Failed("openssl is not installed")
    env = {
        "PATH": SEARCH,
        "LC_ALL": "C",
        "HOME": "/nonexistent/inbounds",
        "OPENSSL_CONF": "/dev/null",
        "SSL_CERT_FILE": "/dev/null",
        "SSL_CERT_DIR": "/nonexistent/inbounds",
    }
    left = max(0.1, deadline - time.monotonic())
    try:
        done = subprocess.run(
            [program, *args],
            cwd=at,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=left,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"openssl ts {args[1]} took too long") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").splitlines()
        why = "; ".join(line for line in said if not line.startswith("Using configuration"))
        raise _Failed(f"openssl ts {args[1]}: {why or 'unreadable'}")
    return done.stdout.decode("utf-8", "replace")


def _checked(url: str) -> SplitResult:
    if len(url) > URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise _Failed("no plain URL")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _Failed("neither http nor https")
    if parts.username is not None or parts.password is not None:
        raise _Failed("a password in the URL would stand in the journal")
    return parts


def _post(url: SplitResult, query: bytes, deadline: float) -> bytes:
    """The authority's reply by the deadline, whatever it does: names are looked up and bytes may drip in a thread."""
    left = max(0.1, deadline - time.monotonic())
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(str(url.hostname), url.port, timeout=left, context=context)
    else:
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=left)
    told: list[bytes | Exception] = []

    def ask() -> None:
        try:
            told.append(_exchange(connection, (url.path or "/") + (f"?{url.query}" if url.query else ""), query))
        except Exception as error:  # raised again by whoever waits for it
            told.append(error)

    asking = threading.Thread(target=ask, name="timestamp", daemon=True)
    asking.start()
    asking.join(left)
    if not told:
        connection.close()  # the thread ends with its socket, or with the look-up
        raise _Failed("the authority took too long")
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def _exchange(connection: http.client.HTTPConnection, target: str, query: bytes) -> bytes:
    """One POST. No redirect is followed; plain http will do, as the token is signed."""
    try:
        headers = {"Content-Type": REQUEST_TYPE, "User-Agent": "inbounds", "Connection": "close"}
        connection.request("POST", target, query, headers)
        with connection.getresponse() as answer:
            if answer.status != HTTP_OK:
                raise _Failed(f"HTTP {answer.status}")
            if (kind := answer.headers.get_content_type()) != REPLY_TYPE:
                raise _Failed(f"an answer of type {kind}")
            body = answer.read(REPLY_BYTES_MAX + 1)
    finally:
        connection.close()
    if len(body) > REPLY_BYTES_MAX:
        raise _Failed(f"a reply of more than {REPLY_BYTES_MAX} bytes")
    return body


def _shown(error: BaseException) -> str:
    text = str(error) if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"
    return "".join(c if c.isprintable() else " " for c in text)[:WHY_CHARS_MAX] or type(error).__name__
