"""What passes the control channel and what does not, over real sockets."""

import json
import os
import socket

import pytest

from inbounds.program import channel


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_objects_and_descriptors_arrive_as_sent_and_then_the_end(pair):
    ours, theirs = pair
    reading, writing = os.pipe()
    channel.send(ours, {"op": "a", "n": [1, "é"]}, reading, writing)
    os.close(reading)
    os.close(writing)
    ours.close()
    message = channel.receive(theirs)
    assert message.body == {"op": "a", "n": [1, "é"]}
    assert [os.get_inheritable(descriptor) for descriptor in message.descriptors] == [False, False]
    os.write(message.descriptors[1], b"x")
    assert os.read(message.descriptors[0], 1) == b"x"
    message.close()
    assert channel.receive(theirs) is None


@pytest.mark.parametrize("raw", [b"[]", b"{", b"\xff", b"[" * 60_000, b'{"a":"' + b"x" * (64 << 10) + b'"}'])
def test_what_is_no_message_is_refused_and_its_descriptors_are_closed(pair, raw):
    ours, theirs = pair
    reading, writing = os.pipe()
    socket.send_fds(ours, [raw], [writing])
    os.close(writing)
    with pytest.raises(channel.ChannelError):
        channel.receive(theirs)
    assert os.read(reading, 1) == b"", "nobody holds the writing end any more"
    os.close(reading)


def test_more_descriptors_than_a_message_has_are_refused(pair):
    ours, theirs = pair
    pipes = [os.pipe() for _ in range(3)]
    socket.send_fds(ours, [b"{}"], [end for pipe in pipes for end in pipe])
    for _, writing in pipes:
        os.close(writing)
    with pytest.raises(channel.ChannelError):
        channel.receive(theirs)
    assert [os.read(reading, 1) for reading, _ in pipes] == [b""] * 3
    for reading, _ in pipes:
        os.close(reading)


def test_too_long_a_message_is_not_sent_but_can_be_shortened(pair):
    ours, theirs = pair
    long = {"op": "result", "text": "a" * 50_000 + "é" * 50_000}
    with pytest.raises(ValueError, match="do not fit"):
        channel.send(ours, long)
    channel.send(ours, channel.shortened(long, "text"))
    text = channel.receive(theirs).body["text"]
    assert text.startswith("aaa")
    assert text.endswith("ééé")
    assert "characters left out" in text
    assert channel.shortened({"text": "short"}, "text") == {"text": "short"}
    assert len(json.dumps(text)) < channel.DATAGRAM_BYTES_MAX
