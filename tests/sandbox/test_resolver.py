"""The refusing resolver: what it parses, what it records, that a real lookup in a jail reaches it and gets nothing."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jailrig import Rig

from inbounds.contracts.job import RESOLVER_PORT
from inbounds.sandbox.resolver import NAMES_MAX, MalformedQueryError, Question, Resolver, parse, refusal
from inbounds.sandbox.spec import Listener


def query(*labels: bytes, kind: int = 1, flags: int = 0x0100, count: int = 1) -> bytes:
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack(">HHHHHH", 7, flags, count, 0, 0, 0) + name + struct.pack(">HH", kind, 1)


def test_a_question_is_parsed_and_refused() -> None:
    message = query(b"Secret-01", b"example", b"COM", kind=16)
    question, end = parse(message)
    assert question == Question("secret-01.example.com", 16)
    answer = refusal(message, end)
    assert struct.unpack_from(">HH", answer) == (7, 0x8105)
    assert answer[12:] == message[12:]


@pytest.mark.parametrize(
    "message",
    [
        b"", b"x" * 11, query(b"a")[:-1], query(b"a", flags=0x8000), query(b"a", flags=0x2800), query(b"a", count=2),
        query(b"a", count=0), query(b"a") + b"x" * 600, query(*[b"x" * 60] * 5),
        struct.pack(">HHHHHH", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", struct.pack(">HHHHHH", 7, 0, 1, 0, 0, 0) + b"\x3f",
    ],
)  # fmt: skip
def test_anything_else_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedQueryError):
        parse(message)


@given(st.binary(max_size=600))
def test_no_bytes_do_worse_than_that(message: bytes) -> None:
    try:
        question, end = parse(message)
    except MalformedQueryError:
        return
    assert question.name.isprintable()
    assert len(refusal(message, end)) <= 512


def test_records_are_bounded() -> None:
    seen: list[Question] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        resolver = Resolver(server, seen.append)
        client.connect(server.getsockname())
        client.settimeout(5)
        for number in range(NAMES_MAX + 50):
            client.send(query(b"n%d" % number, b"evil"))
            client.recv(600)
        client.send(b"rubbish")
        resolver.close()
    assert len(seen) == NAMES_MAX
    assert (resolver.queries, resolver.malformed) == (NAMES_MAX + 51, 1)


@pytest.mark.req("C4")
def test_a_lookup_in_a_jail_is_recorded_and_refused(rig: Rig) -> None:
    seen: list[Question] = []
    jail = rig.spawn("getent", "hosts", "data.exfiltrated.example", listeners=(Listener("dns", "udp", RESOLVER_PORT),))
    resolver = Resolver(jail.listeners["dns"], seen.append)
    jail.go()
    ended = rig.end(jail)
    resolver.close()
    assert ended.end.exit_code == 2
    assert ended.end.ms < 5000
    assert {question.name for question in seen} == {"data.exfiltrated.example"}
