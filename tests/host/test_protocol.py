"""The protocol's messages: what both ends agree on, and that nothing else is taken. Pure."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.host import protocol
from inbounds.host.protocol import ANSWERS, NAMES, NO_SLOT, Op, ProtocolError

EDGES = {"lowest": 1, "highest": 2}


def _request(op: Op, edge: str) -> tuple[bytes, int]:
    numbers = {name: bounds[EDGES[edge] - 1] for name, *bounds in NAMES[op]}
    if op is Op.JAIL and edge == "highest":
        numbers["inherited"] = 4
    slot = NO_SLOT if op in (Op.HELLO, Op.OPEN, Op.SLOTS) else protocol.SLOTS - 1
    descriptors = 1 + numbers["inherited"] + numbers["sources"] if op is Op.JAIL else 0
    return protocol.pack_request(op, slot, **numbers), descriptors


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("op", Op)
def test_a_request_within_its_bounds_is_taken_as_sent(op: Op, edge: str) -> None:
    data, descriptors = _request(op, edge)
    taken = protocol.unpack_request(data, descriptors)
    assert taken.op is op
    assert taken.allowed()
    assert protocol.pack_request(op, taken.slot, **{name: taken[name] for name, _, _ in NAMES[op]}) == data


@pytest.mark.parametrize("op", Op)
def test_one_beyond_any_bound_is_refused(op: Op) -> None:
    data, descriptors = _request(op, "lowest")
    magic, head, slot, *numbers = protocol.FORM.unpack(data)
    for index in range(protocol.NUMBERS):
        _, low, high = NAMES[op][index] if index < len(NAMES[op]) else ("", 0, 0)
        for wrong in {high + 1, (1 << 64) - 1, max(0, low - 1)} - {low}:
            changed = [*numbers[:index], wrong, *numbers[index + 1 :]]
            beside = descriptors
            if op is Op.JAIL:
                beside = 1 + changed[0] + changed[1]
            request = protocol.unpack_request(protocol.FORM.pack(magic, head, slot, *changed), beside)
            assert not request.allowed(), (op, index, wrong)
    for wrong_slot in (protocol.SLOTS, 1 << 63, *([0] if slot == NO_SLOT else [NO_SLOT])):
        request = protocol.unpack_request(protocol.FORM.pack(magic, head, wrong_slot, *numbers), descriptors)
        assert not request.allowed()


@pytest.mark.parametrize("op", Op)
def test_a_wrong_number_of_descriptors_ends_the_connection(op: Op) -> None:
    data, descriptors = _request(op, "lowest")
    for wrong in {descriptors + 1, descriptors - 1, protocol.DESCRIPTORS_MAX} - {-1}:
        with pytest.raises(ProtocolError):
            protocol.unpack_request(data, wrong)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes) -> None:
    try:
        request = protocol.unpack_request(data, 0)
    except ProtocolError:
        return
    assert len(data) == protocol.MESSAGE_BYTES
    assert request.op in Op


@given(
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.lists(st.integers(0, 2**64 - 1), min_size=9, max_size=9),
)
def test_another_version_or_operation_is_none(magic: int, op: int, rest: list[int]) -> None:
    data = struct.pack("!II9Q", magic, op, *rest)
    known = magic == protocol.MAGIC and op in Op.__members__.values() and op != Op.JAIL
    if not known:
        with pytest.raises(ProtocolError):
            protocol.unpack_request(data, 0)
    data = struct.pack("!II9Q", protocol.MAGIC, max(Op) + 1, *rest)
    with pytest.raises(ProtocolError):
        protocol.unpack_request(data, 0)


@pytest.mark.parametrize("op", Op)
def test_answers_carry_their_integers_by_name(op: Op) -> None:
    numbers = tuple(range(1, len(ANSWERS[op]) + 1))
    reply = protocol.unpack_reply(op, protocol.pack_reply(op, 0, 7, *numbers))
    assert (reply.errno, reply.slot, tuple(reply.numbers.values())) == (0, 7, numbers)
    refused = protocol.unpack_reply(op, protocol.pack_reply(op, 13, 7))
    assert (refused.errno, set(refused.numbers.values())) == (13, {0} if ANSWERS[op] else set())


def test_the_sender_names_each_integer() -> None:
    with pytest.raises(ValueError):
        protocol.pack_request(Op.DEADLINE, 0)
    with pytest.raises(ValueError):
        protocol.pack_request(Op.HELLO, deadline_ms=1)
    with pytest.raises(ValueError):
        protocol.pack_reply(Op.OPEN, 0, 1, 2)


def test_user_numbers_lie_below_systemds_and_above_rootless_ones() -> None:
    assert protocol.uid_of(0) > 60_600 + 499
    assert protocol.uid_of(protocol.SLOTS - 1) < 61_184
