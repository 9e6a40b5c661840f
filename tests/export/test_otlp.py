"""Traces: read back by OpenTelemetry's own messages, the same every time, sent to a real server and nowhere else."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import evidence
import exported_run
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]  # it ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.export import otlp, send


def made(home: Path, steps: list[tuple[str, dict[str, Any]]] | None = None) -> list[dict[str, Any]]:
    records = evidence.read(evidence.write(home, steps or exported_run.steps()))
    return list(otlp.requests(records, "0.1.0"))


def parsed(request: dict[str, Any]) -> ExportTraceServiceRequest:
    """OTLP/JSON writes ids in hex where protobuf's own JSON mapping has base64; every other field is protobuf's."""
    value = json.loads(json.dumps(request))
    for span in value["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    message = ExportTraceServiceRequest()
    json_format.ParseDict(value, message)  # unknown fields are an error
    return message


def spans_of(requests: list[dict[str, Any]]) -> list[Any]:
    return [span for request in requests for span in parsed(request).resource_spans[0].scope_spans[0].spans]


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.req("O5")
def test_opentelemetry_reads_one_trace_with_every_span_in_its_place(tmp_path: Path) -> None:
    requests = made(tmp_path)
    assert requests[0]["resourceSpans"][0]["schemaUrl"] == "https://opentelemetry.io/schemas/1.41.0"
    spans = spans_of(requests)
    assert len({span.trace_id for span in spans}) == 1
    assert all(len(span.trace_id) == 16 and len(span.span_id) == 8 for span in spans)
    assert len({span.span_id for span in spans}) == len(spans)
    by_name = {span.name: span for span in spans}
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "invoke_agent claude"
    assert root.status.code == 1
    iteration = by_name["iteration 2"]
    assert iteration.parent_span_id == root.span_id
    inside = [span for span in spans if span.parent_span_id == iteration.span_id]
    assert sorted(span.name for span in inside) == [
        "chat claude-sonnet-4-5",
        "chat claude-sonnet-4-5",
        "execute_tool run_tests",
        "jail coder",
    ]
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano for span in spans)


def test_a_chat_follows_the_genai_conventions(tmp_path: Path) -> None:
    chat = next(span for span in spans_of(made(tmp_path)) if span.name.startswith("chat "))
    found = attributes(chat)
    assert chat.kind == 3
    assert {name: found[name] for name in found if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.conversation.id": evidence.RUN_ID,
        "gen_ai.usage.input_tokens": 9_202 + 30_000 + 1_100,
        "gen_ai.usage.output_tokens": 410,
        "gen_ai.usage.cache_read.input_tokens": 30_000,
        "gen_ai.usage.cache_creation.input_tokens": 1_100,
    }
    assert (chat.end_time_unix_nano - chat.start_time_unix_nano) == 2_400 * 1_000_000


def test_denials_and_stops_are_events_with_their_record(tmp_path: Path) -> None:
    (root,) = [span for span in spans_of(made(tmp_path)) if not span.parent_span_id]
    events = {event.name: attributes(event) for event in root.events}
    assert events["inbounds.stop.decided"]["inbounds.code"] == "DONE"
    assert events["inbounds.denial"]["inbounds.detail"] == "pypi.org"
    assert events["inbounds.denial"]["inbounds.sensitive"] is False
    assert events["inbounds.promotion.decided"]["inbounds.outcome"] == "promoted"
    assert all("inbounds.journal.seq" in event for event in events.values())


def test_the_agents_words_are_not_sent(tmp_path: Path) -> None:
    assert "everything is perfect" not in json.dumps(made(tmp_path))


def test_ids_follow_from_the_records(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a"), made(tmp_path / "b")
    assert one == two
    other = exported_run.steps()
    other[0][1]["run_id"] = "20261120-231500-ffffff"
    ids = [
        request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] for request in made(tmp_path / "c", other)
    ]
    assert ids[0] != one[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]


def test_a_run_that_stopped_short_is_an_error_and_one_under_way_is_neither(tmp_path: Path) -> None:
    steps = [
        *evidence.good_run()[:10],
        *evidence.stop("BUDGET", "spent", "revert"),
        ("run.finished", {"code": "BUDGET"}),
    ]
    (stopped,) = [span for span in spans_of(made(tmp_path / "a", steps)) if not span.parent_span_id]
    assert (stopped.status.code, stopped.status.message) == (2, "BUDGET")
    (alive,) = [span for span in spans_of(made(tmp_path / "b", steps[:10])) if not span.parent_span_id]
    assert alive.status.code == 0
    assert attributes(alive)["inbounds.run.state"] == "unfinished"
    assert all(span.end_time_unix_nano > 0 for span in spans_of(made(tmp_path / "c", steps[:10])))


def test_nothing_was_accepted_nothing_is_told(tmp_path: Path) -> None:
    run_dir = evidence.write(tmp_path, [])
    assert list(otlp.requests(evidence.read(run_dir), "0")) == []


def test_a_long_run_is_sent_in_parts_of_one_trace(tmp_path: Path) -> None:
    steps = evidence.good_run()[:5] + [("model.usage", evidence.usage(n, n)) for n in range(otlp.SPANS_PER_REQUEST + 5)]
    requests = made(tmp_path, steps)
    assert [len(request["resourceSpans"][0]["scopeSpans"][0]["spans"]) for request in requests] == [2_000, 7]
    assert len({span.trace_id for span in spans_of(requests)}) == 1


def test_a_flood_of_denials_is_counted_beyond_the_limit(tmp_path: Path) -> None:
    denial = ("denial", {"kind": "name", "detail": "x" * 5_000, "sensitive": False})
    steps = [*evidence.good_run()[:5], *[denial] * (otlp.EVENTS_MAX + 3)]
    span = next(span for span in spans_of(made(tmp_path, steps)) if span.name == "iteration 1")
    assert (len(span.events), span.dropped_events_count) == (otlp.EVENTS_MAX, 3)
    assert len(attributes(span.events[0])["inbounds.detail"]) == otlp.TEXT_CHARS_MAX


class Collector(ThreadingHTTPServer):
    """Takes what is sent to it; answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, str, bytes]] = []
        self.status, self.answer, self.location = 200, b"{}", ""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def do_GET(self) -> None:  # what a redirect is followed with
        self.server.taken.append((self.path, "", b""))
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_real_server_gets_what_opentelemetry_reads(tmp_path: Path, collector: Collector) -> None:
    requests = made(tmp_path)
    assert send.post(send.endpoint(collector.url), requests) == len(requests)
    ((path, kind, body),) = collector.taken
    assert (path, kind) == ("/v1/traces", "application/json")
    assert parsed(json.loads(body)) == parsed(requests[0])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, collector: Collector, status: int) -> None:
    other = Collector()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    collector.status, collector.location = status, f"{other.url}/v1/traces"
    try:
        with pytest.raises(HostError, match="redirects"):
            send.post(send.endpoint(collector.url), made(tmp_path))
    finally:
        other.shutdown()
        other.server_close()
    assert len(collector.taken) == 1
    assert other.taken == []


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (503, b"", "HTTP 503"),
        (400, b"{}", "HTTP 400"),
        (200, b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}', "refused 3 spans: too old"),
    ],
)
def test_what_a_collector_does_not_take_is_said(
    tmp_path: Path, collector: Collector, status: int, answer: bytes, says: str
) -> None:
    collector.status, collector.answer = status, answer
    with pytest.raises(HostError, match=says):
        send.post(send.endpoint(collector.url), made(tmp_path))


def test_nobody_listens(tmp_path: Path) -> None:
    server = Collector()
    server.server_close()
    with pytest.raises(HostError, match="gave no answer"):
        send.post(send.endpoint(server.url), made(tmp_path))


def test_a_request_beyond_the_limit_is_not_sent(collector: Collector) -> None:
    with pytest.raises(HostError, match="one request of"):
        send.post(collector.url, [{"x": "y" * send.BODY_BYTES_MAX}])
    assert collector.taken == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x/",
        "file:///etc/passwd",
        "http://",
        "http://u:p@x/",
        "http://x/a b",
        "http://x:99999/",
        "x:4318",
        "http://x/#f",
    ],
)
def test_only_plain_addresses_of_the_web_are_taken(url: str) -> None:
    with pytest.raises(OperatorError):
        send.endpoint(url)
    assert send.endpoint("https://x.example/otlp/v1/traces?k=1") == "https://x.example/otlp/v1/traces?k=1"
