"""What the gateway answers instead of forwarding, in the error shape of the agent's own wire format.

A limit is 402 or 403, never 429: agents retry 429 until they are killed (AGENTS, facts), which is right only for a line
that moves. Plain words, no secrets.
"""

import json
from dataclasses import dataclass

from inbounds.gateway.config import Format

_OPENAI_TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "insufficient_quota", 429: "requests"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request: HTTP `status`, a stable `reason` for the journal, and words for whoever reads the reply.

    `cap` names the exhausted ceiling for 402; `retry_after_s` is set only where waiting helps (429, 503).
    """

    status: int
    reason: str
    message: str
    detail: str = ""
    cap: str = ""
    retry_after_s: int | None = None

    def body(self, wire: Format | None) -> bytes:
        """The JSON error of `wire`; OpenAI's shape where the route has no format."""
        message = f"inbounds: {self.message}"
        if wire is Format.MESSAGES:
            kind = _ANTHROPIC_TYPES.get(self.status, "api_error")
            return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        kind = _OPENAI_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")  # noqa: PLR2004 - HTTP's own line between client and server
        error = {"message": message, "type": kind, "code": self.reason, "param": None}
        return json.dumps({"error": error}).encode()

    def headers(self) -> dict[str, str]:
        """Content type, and Retry-After where the shortage is temporary."""
        headers = {"Content-Type": "application/json"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers
