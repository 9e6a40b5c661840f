"""Which package indexes this host is configured for, and how it reaches them: what the proxy is told.

Asks pip and npm themselves, outside any repository, so that no file of a repository decides. Credentials in an index's
address stay in here and in the proxy; they are never shown.
"""

import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inbounds.contracts.errors import OperatorError

PYPI, NPM = "https://pypi.org/simple", "https://registry.npmjs.org"
ASK_SECONDS = 60  # npm takes about one


@dataclass(frozen=True, slots=True)
class Upstream:
    """`pip_index` and `npm_registry`: http(s) addresses without a slash at the end, credentials in them or not.

    `ca_file`: PEM bundle or "" for the system's; `proxies`: scheme -> proxy address, with "no" for exceptions, as
    urllib.request.getproxies gives them. `file_bytes_max` for one file, `total_bytes_max` for all of a build.
    """

    pip_index: str = PYPI
    npm_registry: str = NPM
    ca_file: str = ""
    proxies: Mapping[str, str] | None = None
    file_bytes_max: int = 2 << 30  # the largest wheels on the public index are about 1 GB
    total_bytes_max: int = 16 << 30
    requests_max: int = 50_000  # an npm lock of 5,000 packages takes 10,000

    def __post_init__(self) -> None:
        """OperatorError for an address that the proxy can't fetch from."""
        for name in ("pip_index", "npm_registry"):
            address = getattr(self, name)
            parts = urllib.parse.urlsplit(address)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
                raise OperatorError(
                    f"{name} {without_credentials(address)!r}",
                    expected="an http or https address of a package index",
                    fix="pip config set global.index-url https://…",
                )
            object.__setattr__(self, name, address.rstrip("/"))

    def as_json(self) -> dict[str, Any]:
        """For the control channel; holds credentials if the addresses do."""
        return asdict(self)

    def shown(self) -> dict[str, str]:
        """For people and journals: without credentials."""
        return {"pip": without_credentials(self.pip_index), "npm": without_credentials(self.npm_registry)}


def without_credentials(address: str) -> str:
    """The address less user and password."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def discover(environ: Mapping[str, str] | None = None) -> tuple[Upstream, tuple[str, ...]]:
    """What pip, npm and the environment are configured for, with notes on what is configured but not used."""
    env = dict(os.environ if environ is None else environ)
    pip = _pip_settings(env)
    notes = []
    if extra := pip.get("extra-index-url"):
        notes.append(
            f"pip's extra index {', '.join(map(without_credentials, extra.split()))} is not used: with two indexes"
            " a name can be answered by the wrong one"
        )
    if links := pip.get("find-links"):
        notes.append(f"pip's find-links {without_credentials(links)} is not used")
    ca_file = next(
        (
            path
            for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
            if (path := env.get(name))
        ),
        pip.get("cert", ""),
    )
    upstream = Upstream(
        pip_index=pip.get("index-url", "").strip() or PYPI,
        npm_registry=_npm_registry(env) or NPM,
        ca_file=ca_file,
        proxies=_proxies(env),
    )
    return upstream, tuple(notes)


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    """HTTP_PROXY, HTTPS_PROXY, NO_PROXY in either case, lower case first as curl has it."""
    found = {}
    for scheme in ("http", "https", "no"):
        value = env.get(f"{scheme}_proxy") or env.get(f"{scheme.upper()}_PROXY")
        if value:
            found[scheme] = value
    return found


def proxy_for(address: str, proxies: Mapping[str, str] | None) -> str | None:
    """The proxy to use for an address, or None."""
    parts = urllib.parse.urlsplit(address)
    given = dict(proxies or {})
    if "no" in given and urllib.request.proxy_bypass_environment(parts.netloc.rpartition("@")[2], given):  # type: ignore[attr-defined]  # there since 3.9, not in typeshed
        return None
    return given.get(parts.scheme)


def port_of(address: str) -> int:
    """The TCP port of an http or https address, or of a proxy that is written without a scheme."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    return parts.port or (443 if parts.scheme == "https" else 80)


def ports(upstream: Upstream) -> frozenset[int]:
    """Every TCP port that the proxy connects to: the web's two, as an index may keep its files elsewhere, and its own.

    An index page must not lead to other services of a host (server-side request forgery, CWE-918).
    """
    proxies = {name: address for name, address in (upstream.proxies or {}).items() if name != "no"}
    return frozenset({80, 443, *map(port_of, (upstream.pip_index, upstream.npm_registry, *proxies.values()))})


def _pip_settings(env: Mapping[str, str]) -> dict[str, str]:
    """What pip says of itself, environment over command section over global; the environment alone where no pip is."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in _pip_says(env).splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)='(.*)'", line.strip())
        if match and ranks[match[1]] >= found.get(match[2], (0, ""))[0]:
            found[match[2]] = (ranks[match[1]], match[3].replace("\\n", " "))
    settings = {name: value for name, (_, value) in found.items()}
    for name in ("index-url", "extra-index-url", "find-links", "cert"):
        if value := env.get("PIP_" + name.upper().replace("-", "_")):
            settings[name] = value
    if "index-url" not in settings and (value := env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL")):
        settings["index-url"] = value
    return settings


def _pip_says(env: Mapping[str, str]) -> str:
    """`pip config list` of the first pip there is: an installation by uv or pipx has none of its own."""
    path = env.get("PATH")
    others = [[found] for name in ("pip3", "pip") if (found := shutil.which(name, path=path))]
    for start in ([sys.executable, "-I", "-m", "pip"], *others):
        if said := _ask([*start, "config", "list"], env):
            return said
    return ""


def _npm_registry(env: Mapping[str, str]) -> str:
    npm = shutil.which("npm", path=env.get("PATH"))
    # npm would make ~/.npm and write a log there only to be asked
    quiet = {**env, "npm_config_cache": os.devnull, "npm_config_logs_max": "0"}
    said = _ask([npm, "config", "get", "registry"], quiet).strip() if npm else ""
    return said if re.match(r"https?://\S+$", said) else ""


def _ask(argv: list[str], env: Mapping[str, str]) -> str:
    """What a tool says of its configuration; "" where it fails, which is what having none looks like."""
    try:
        done = subprocess.run(argv, cwd="/", env=dict(env), capture_output=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def load(value: object) -> Upstream:
    """From the control channel; OperatorError if malformed."""
    try:
        return Upstream(**(value if isinstance(value, dict) else {"configuration": value}))
    except (TypeError, ValueError) as error:
        raise OperatorError(f"the proxy's configuration: {error}") from None
