"""A journal as OpenTelemetry traces in OTLP/JSON: one trace a run; spans for the run, iterations, jails, chats, tools.

Pure: the same records always give the same ids and bytes, so that what is sent twice is one trace. Names follow the
GenAI conventions of SEMCONV; what they have no name for is under `inbounds.`. The agent's words are not sent.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from inbounds.journal.chain import Record

# 1.41.0 is the last release of the conventions that contains GenAI; since 1.42.0 they live, untagged, in a repository
# of their own (open-telemetry/semantic-conventions-genai).
SEMCONV = "1.41.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{SEMCONV}"
SCOPE = "inbounds.journal"
# A collector's default limit for one request is 20 MiB: 2,000 spans of some 2 KB stay far below.
SPANS_PER_REQUEST = 2_000
EVENTS_MAX = 1_000  # events kept on one span; more are counted in droppedEventsCount
TEXT_CHARS_MAX = 1_000
INTERNAL, CLIENT = 1, 3  # Span.SpanKind
OK, ERROR = 1, 2  # Status.StatusCode
NS_PER_MS = 1_000_000

# The gateway's wire formats by the provider names of the GenAI registry; elsewhere the host says who it is.
_PROVIDERS = {"api.anthropic.com": "anthropic", "api.openai.com": "openai", "api.mistral.ai": "mistral_ai",
              "api.deepseek.com": "deepseek", "api.groq.com": "groq", "api.x.ai": "x_ai",
              "generativelanguage.googleapis.com": "gcp.gemini"}  # fmt: skip
_EVENTS = {
    "denial": ("kind", "what", "detail", "sensitive"),
    "model.refused": ("reason", "cap", "status", "model", "detail"),
    "stop.decided": ("code", "why", "disposal"),
    "stop.step": ("step", "ok", "detail"),
    "verdict": ("judge", "outcome", "summary"),
    "commit.made": ("n", "commit", "tree", "branch"),
    "promotion.decided": ("target", "outcome", "commit"),
    "operator.decision": ("kind", "operator"),
    "operator.stopped": ("who", "why"),
    "run.reauthorized": ("stop_hash", "operators"),
    "contract.amended": ("version", "operator"),
    "run.recovered": (),
    "journal.recovered": (),
    "part.failed": ("part", "detail"),
}
_INSIDE = frozenset({"denial", "model.refused", "verdict", "commit.made"})  # events of the iteration that is under way


@dataclass(slots=True)
class _Span:
    name: str
    start_ms: int
    seed: str
    parent: "_Span | None" = None
    kind: int = INTERNAL
    end_ms: int = -1
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0
    error: str | None = None  # "": it went well; None: nothing is said of that


def requests(records: Iterable[Record], version: str) -> Iterator[dict[str, Any]]:
    """ExportTraceServiceRequest objects (OTLP 1.x, JSON mapping), each of at most SPANS_PER_REQUEST spans.

    `version` is that of the program which exports. A run that has not ended gives spans that end where the journal
    does, and `inbounds.run.state` "unfinished". Nothing for a journal without run.accepted.
    """
    trace = _Trace()
    for record in records:
        trace.take(record)
    if trace.run is None:
        return
    trace.close()
    resource = {"attributes": _attributes({"service.name": "inbounds", "service.version": version})}
    scope = {"name": SCOPE, "version": version}
    for start in range(0, len(trace.spans), SPANS_PER_REQUEST):
        spans = [_encoded(span, trace.id) for span in trace.spans[start : start + SPANS_PER_REQUEST]]
        scoped = {"scope": scope, "spans": spans, "schemaUrl": SCHEMA_URL}
        yield {"resourceSpans": [{"resource": resource, "scopeSpans": [scoped], "schemaUrl": SCHEMA_URL}]}


class _Trace:
    """Spans as the records open and close them; the run's is the root."""

    def __init__(self) -> None:
        self.id = ""
        self.spans: list[_Span] = []
        self.run: _Span | None = None
        self._iteration: _Span | None = None
        self._jails: dict[str, list[_Span]] = {}
        self._last_ms = 0
        self._accepted: Mapping[str, Any] = {}
        self._code = ""
        self._sums = dict.fromkeys(("input", "output"), 0)

    def take(self, record: Record) -> None:
        self._last_ms = max(self._last_ms, record.at_ms)
        if self.run is None:
            if record.kind == "run.accepted":
                self._accept(record)
            return
        match record.kind:
            case "iteration.started":
                self._end_iteration(record.at_ms)
                self._iteration = self._open(f"iteration {_short(record, 'n')}", record)
                self._iteration.attributes["inbounds.iteration.n"] = record.data.get("n")
            case "iteration.finished":
                self._finished(record)
            case "jail.started":
                self._jail(record)
            case "jail.exited":
                self._jail_ended(record)
            case "model.usage":
                self._chat(record)
            case "tool.called":
                self._tool(record)
            case "run.finished":
                self._end_iteration(record.at_ms)
                self.run.end_ms, self._code = record.at_ms, _short(record, "code")
            case "run.reauthorized":
                self.run.end_ms, self._code = -1, ""
            case _:
                pass
        if record.kind in _EVENTS:
            self._event(record)

    def close(self) -> None:
        """End whatever the journal leaves open, where the journal ends."""
        assert self.run is not None
        self._end_iteration(self._last_ms)
        ended = self.run.end_ms >= 0
        for span in self.spans:
            if span.end_ms < 0:
                span.end_ms = max(span.start_ms, self._last_ms)
        self.run.attributes |= {
            "inbounds.run.state": "finished" if ended else "unfinished",
            "inbounds.stop.code": self._code or None,
            "gen_ai.usage.input_tokens": self._sums["input"],
            "gen_ai.usage.output_tokens": self._sums["output"],
        }
        if ended:
            self.run.error = "" if self._code == "DONE" else self._code

    def _accept(self, record: Record) -> None:
        data = self._accepted = record.data
        agent = data.get("agent")
        named = agent if isinstance(agent, dict) else {}
        self.id = hashlib.sha256(b"inbounds trace\0" + record.hash.encode()).hexdigest()[:32]
        self.run = _Span(f"invoke_agent {named.get('name', '')}".strip(), record.at_ms, record.hash)
        self.run.attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": named.get("name"),
            "gen_ai.agent.version": named.get("version"),
            "gen_ai.conversation.id": data.get("run_id"),
            "gen_ai.request.model": data.get("model"),
            "inbounds.run.id": data.get("run_id"),
            "inbounds.thread": data.get("thread"),
            "inbounds.plan.id": data.get("plan_id"),
            "inbounds.contract.sha256": data.get("contract_sha256"),
            "inbounds.blast_radius.sha256": data.get("blast_radius_sha256"),
            "inbounds.budget_micro_usd": data.get("budget_micro_usd"),
            "inbounds.journal.seq": record.seq,
        }
        self.spans.append(self.run)

    def _open(self, name: str, record: Record, start_ms: int | None = None) -> _Span:
        span = _Span(name, record.at_ms if start_ms is None else start_ms, record.hash, self._iteration or self.run)
        span.attributes = {"inbounds.run.id": self._accepted.get("run_id"), "inbounds.journal.seq": record.seq}
        self.spans.append(span)
        return span

    def _finished(self, record: Record) -> None:
        if self._iteration is None:
            return
        names = ("failing_before", "failing_after", "progress", "score", "tree")
        self._iteration.attributes |= {f"inbounds.iteration.{name}": record.data.get(name) for name in names}
        self._end_iteration(record.at_ms)

    def _end_iteration(self, at_ms: int) -> None:
        if self._iteration is not None:
            self._iteration.end_ms, self._iteration = at_ms, None

    def _jail(self, record: Record) -> None:
        role = _short(record, "role")
        span = self._open(f"jail {role}", record)
        span.attributes |= {"inbounds.jail.role": role, "process.executable.path": record.data.get("argv0")}
        self._jails.setdefault(role, []).append(span)

    def _jail_ended(self, record: Record) -> None:
        waiting = self._jails.get(_short(record, "role"))
        if not waiting:
            return
        span, data = waiting.pop(0), record.data
        span.end_ms = record.at_ms
        span.attributes |= {"inbounds.jail.reason": data.get("reason"), "process.exit.code": data.get("exit_code")}
        if data.get("reason") != "exited":
            span.error = _short(record, "reason")

    def _chat(self, record: Record) -> None:
        data = record.data
        span = self._timed(f"chat {_short(record, 'model')}", record)
        span.kind = CLIENT
        host, status = str(data.get("host", "")), data.get("status")
        read, written = _count(data, "cache_read_tokens"), _count(data, "cache_write_tokens")
        # The conventions count what was read from and written to a cache as input; the gateway's figures are disjoint.
        tokens = {"input": _count(data, "input_tokens") + read + written, "output": _count(data, "output_tokens")}
        span.attributes |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(host, host or "unknown"),
            "gen_ai.request.model": data.get("model"),
            "gen_ai.conversation.id": self._accepted.get("run_id"),
            "gen_ai.usage.input_tokens": tokens["input"],
            "gen_ai.usage.output_tokens": tokens["output"],
            "gen_ai.usage.cache_read.input_tokens": read,
            "gen_ai.usage.cache_creation.input_tokens": written,
            "server.address": host,
            "http.response.status_code": status,
            "inbounds.cost_micro_usd": data.get("cost_micro_usd"),
            "inbounds.spent_micro_usd": data.get("spent_micro_usd"),
            "inbounds.settlement": data.get("state"),
            "inbounds.tool_calls": data.get("tool_calls"),
            "inbounds.bytes_out": data.get("bytes_out"),
            "inbounds.bytes_in": data.get("bytes_in"),
        }
        if type(status) is int and status >= 400:  # noqa: PLR2004 - HTTP's errors
            span.attributes["error.type"], span.error = str(status), f"HTTP {status}"
        elif data.get("state") == "unknown":
            span.attributes["error.type"], span.error = "usage_unknown", str(data.get("why", ""))[:TEXT_CHARS_MAX]
        for name, count in tokens.items():
            self._sums[name] += count

    def _tool(self, record: Record) -> None:
        tool, outcome = _short(record, "tool"), _short(record, "outcome")
        span = self._timed(f"execute_tool {tool}", record)
        span.attributes |= {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
            "inbounds.tool.outcome": outcome,
        }
        if outcome != "ok":
            span.attributes["error.type"], span.error = outcome, outcome

    def _timed(self, name: str, record: Record) -> _Span:
        """A span whose record was written at its end: from when it began, for as long as it took."""
        took, began = _count(record.data, "ms"), record.data.get("began_at_ms")
        start = began if type(began) is int and 0 <= began <= record.at_ms else max(0, record.at_ms - took)
        span = self._open(name, record, start)
        span.end_ms = min(record.at_ms, start + took)
        return span

    def _event(self, record: Record) -> None:
        assert self.run is not None
        span = self._iteration if self._iteration is not None and record.kind in _INSIDE else self.run
        if len(span.events) >= EVENTS_MAX:
            span.dropped += 1
            return
        found = {f"inbounds.{name}": record.data.get(name) for name in _EVENTS[record.kind]}
        span.events.append(
            {
                "timeUnixNano": str(record.at_ms * NS_PER_MS),
                "name": f"inbounds.{record.kind}",
                "attributes": _attributes({**found, "inbounds.journal.seq": record.seq}),
            }
        )


def _encoded(span: _Span, trace: str) -> dict[str, Any]:
    made: dict[str, Any] = {"traceId": trace, "spanId": _span_id(span)}
    if span.parent is not None:
        made["parentSpanId"] = _span_id(span.parent)
    made |= {
        "name": span.name[:TEXT_CHARS_MAX],
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ms * NS_PER_MS),
        "endTimeUnixNano": str(max(span.start_ms, span.end_ms) * NS_PER_MS),
        "attributes": _attributes(span.attributes),
        "events": span.events,
        "droppedEventsCount": span.dropped,
    }
    if span.error:
        made["status"] = {"code": ERROR, "message": span.error[:TEXT_CHARS_MAX]}
    elif span.error is not None:
        made["status"] = {"code": OK}
    return made


def _span_id(span: _Span) -> str:
    return hashlib.sha256(b"inbounds span\0" + span.seed.encode()).hexdigest()[:16]


def _attributes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """OTLP key values, in order of key; what is absent or of no simple type is left out."""
    made = []
    for key in sorted(found):
        value = _value(found[key])
        if value is not None:
            made.append({"key": key, "value": value})
    return made


def _value(value: Any) -> dict[str, Any] | None:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits do not fit JSON's numbers: the mapping writes them as text
    if isinstance(value, str):
        return {"stringValue": value[:TEXT_CHARS_MAX]} if value else None
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [item for item in map(_value, value) if item]}}
    return None


def _short(record: Record, name: str) -> str:
    return str(record.data.get(name, ""))[:TEXT_CHARS_MAX]


def _count(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return value if type(value) is int and value > 0 else 0
