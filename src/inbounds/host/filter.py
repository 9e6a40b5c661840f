"""The packet filter of slots: table inet inbounds of nf_tables, where packets of a slot's user and group are dropped.

Spoken to by netlink, so that no program is started and nothing is read but the kernel's answers. Loopback, too: a jail
reaches the gateway by a listener in its own network namespace, whose tables are others. Unix sockets and AF_VSOCK are
no packets and not seen here; the jail's system call filter refuses the latter.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from inbounds.host.protocol import SLOTS, uid_of

TABLE = b"inbounds"
CHAINS = {b"input": 1, b"output": 3}  # the hooks' numbers; input for what others send to a slot's sockets
PRIORITY = -400 & 0xFFFFFFFF  # before connection tracking; a drop is final wherever it stands
PART_BYTES = 1 << 16  # the kernel answers a dump in parts of 32 KiB at most
LOOK_SECONDS = 2.0  # how often a slot's rules are asked for, beside each time that somebody changes anything
UNKNOWN_SECONDS = 10.0  # how long it may be impossible to ask
CHANGED = 7  # the multicast group of nf_tables' changes
PARTS_MAX = 1_000  # read at one time of what was told of changes; the rest at the next
LOOKS_MAX = 10  # at a table that somebody changes while it is being read
SECONDS_MAX = 10
PROBE_UID = uid_of(SLOTS)  # one behind the last slot's: nobody has it

NETLINK_NETFILTER, NFTABLES, INET = 12, 10, 1  # protocol, subsystem, family
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE, GETRULE, DELRULE = 0, 2, 3, 6, 7, 8
BEGIN, END, ERROR, DONE = 16, 17, 2, 3  # types of messages
REQUEST, ACK, INTERRUPTED, DUMP, CREATE, APPEND = 1, 4, 0x10, 0x300, 0x400, 0x800  # flags of messages
SKUID, CGROUPV2 = 10, 3  # keys of the expressions meta and socket


@dataclass(frozen=True, slots=True)
class Dropped:
    """What the kernel has of one slot: its user, and packets and bytes that were dropped so far."""

    uid: int
    packets: int
    octets: int


def drop(slot: int, uid: int, cgroup: tuple[int, int] | None = None, *, table: bytes = TABLE) -> bool:
    """Drop every packet of a user's sockets, IPv4 and IPv6, and of a group (id, depth) of cgroup v2; whether of both.

    Replaces what the slot had, in one transaction. The user's rule alone lets datagrams in to sockets that have sent
    none. OSError where the kernel refuses that rule, or does not show it afterwards.
    """
    if not (0 <= slot < SLOTS and 0 < uid < 1 << 32):
        raise ValueError(f"slot {slot}, user {uid}")
    messages = [(NEWTABLE, CREATE, _text(1, table))]
    for name, hook in CHAINS.items():  # none of these changes what is there already
        where = _attribute(1, _be(hook)) + _attribute(2, _be(PRIORITY))
        chain = _text(1, table) + _text(3, name) + _attribute(4, where) + _text(7, b"filter")
        messages.append((NEWCHAIN, CREATE, chain))
    messages += _removals(slot, table)
    comment = _attribute(7, _comment(slot))
    rules = [
        [
            (NEWRULE, CREATE | APPEND, _text(1, table) + _text(2, name) + _attribute(4, _listed(match)) + comment)
            for name in CHAINS
        ]
        for match in [_user(uid), *([_group(*cgroup)] if cgroup else [])]
    ]
    both = cgroup is not None
    try:
        _change(messages + [rule for pair in rules for rule in pair])
    except OSError:
        if not both:
            raise
        both = False  # a kernel before 5.13, or without this expression
        _change(messages + rules[0])
    held = present(slot, table=table)
    if held is None or held.uid != uid:
        raise OSError("the packet filter was accepted and is not there")
    return both


def lift(slot: int, *, table: bytes = TABLE) -> None:
    """Take a slot's rules away; none there is no error."""
    _change(_removals(slot, table))


def present(slot: int, *, table: bytes = TABLE) -> Dropped | None:
    """What the kernel holds against a slot's user now, read from it; None unless every chain has exactly our rule."""
    found = dict[bytes, Dropped]()
    for chain, _, expressions in _rules(slot, table):
        rest = [(name, data) for name, data in expressions if name != b"counter"]
        uid = int.from_bytes(dict(rest).get(b"cmp", {}).get(3, b"")[-4:], sys.byteorder)
        counter = dict(expressions).get(b"counter")
        if counter and rest == [(name, _parsed(data)) for name, data in _user(uid) if name != b"counter"]:
            found[chain] = Dropped(uid, int.from_bytes(counter[2]), int.from_bytes(counter[1]))
    if set(found) != set(CHAINS) or len({held.uid for held in found.values()}) > 1:
        return None
    held = list(found.values())
    return Dropped(held[0].uid, sum(one.packets for one in held), sum(one.octets for one in held))


class Changes:
    """Tells when anybody has changed any table, so that a slot's rules can be asked for again."""

    def __init__(self) -> None:
        """OSError where the kernel does not tell."""
        self._link, self._seen = _open(groups=1 << (CHANGED - 1)), time.monotonic()
        self._link.setblocking(False)

    def old(self) -> bool:
        """Whether it is time to ask, whatever was told."""
        return time.monotonic() - self._seen > LOOK_SECONDS

    def holds(self, slot: int, uid: int) -> bool:
        """Whether the slot's user is filtered now; not, too, where nobody could say so for a while."""
        self._drain()
        try:
            held = present(slot)
        except OSError:  # somebody changes it all the time, or the kernel has no memory now
            return time.monotonic() - self._seen < UNKNOWN_SECONDS
        self._seen = time.monotonic()
        return held is not None and held.uid == uid

    def fileno(self) -> int:
        """For poll."""
        return self._link.fileno()

    def _drain(self) -> None:
        for _ in range(PARTS_MAX):
            try:
                self._link.recv(1)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than there was room for
                    raise

    def close(self) -> None:
        """Let go."""
        self._link.close()


def remove_all(*, table: bytes = TABLE) -> None:
    """Remove the table with all that is in it; no other is touched, none there is no error."""
    _change([(NEWTABLE, CREATE, _text(1, table)), (DELTABLE, 0, _text(1, table))])


def mechanism() -> str:
    """Tried: a packet of nobody's user passes before, then is dropped and counted. "enforced" or "absent: why"."""
    table = TABLE + b"-probe-%d" % os.getpid()
    families = [socket.AF_INET, *([socket.AF_INET6] if os.path.exists("/proc/net/if_inet6") else [])]
    try:
        if any(_dropped(family) for family in families):
            return "absent: packets to loopback are dropped by something else, so it can't be tried"
        try:
            drop(0, PROBE_UID, table=table)
            all_dropped = all(_dropped(family) for family in families)
            held = present(0, table=table)
        finally:
            remove_all(table=table)
    except OSError as error:
        return f"absent: {error.strerror or error}"
    return "enforced" if all_dropped and held and held.packets >= len(families) else "absent: packets pass the rule"


def _dropped(family: int) -> bool:
    """Whether a packet of the probe's user is refused on its way out."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(PROBE_UID)  # of this thread; a socket is its maker's for ever
    try:
        sender = socket.socket(family, socket.SOCK_DGRAM)
    finally:
        libc.setfsuid(os.geteuid())
    with sender:
        try:
            sender.sendto(b"", ("127.0.0.1" if family == socket.AF_INET else "::1", 9))
        except PermissionError:
            return True
    return False


# -- messages of nf_tables: attributes are numbered as in linux/netfilter/nf_tables.h ----------------------------------


def _be(number: int) -> bytes:
    return struct.pack("!I", number)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _text(kind: int, name: bytes) -> bytes:
    return _attribute(kind, name + b"\0")


def _parsed(data: bytes) -> dict[int, bytes]:
    return dict(_split(data))


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:  # noqa: PLR2004 - the size of an attribute's header
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[max(4, size + -size % 4) :]


def _expression(name: bytes, *attributes: tuple[int, bytes]) -> tuple[bytes, bytes]:
    return name, b"".join(_attribute(*one) for one in attributes)


def _matched(first: tuple[bytes, bytes], value: bytes) -> list[tuple[bytes, bytes]]:
    """What is loaded into register 1 by `first` equals `value`: count and drop."""
    return [
        first,
        _expression(b"cmp", (1, _be(1)), (2, _be(0)), (3, _attribute(1, value))),
        _expression(b"counter"),
        _expression(b"immediate", (1, _be(0)), (2, _attribute(2, _attribute(1, _be(0))))),  # into the verdict: drop
    ]


def _user(uid: int) -> list[tuple[bytes, bytes]]:
    return _matched(_expression(b"meta", (1, _be(1)), (2, _be(SKUID))), struct.pack("=I", uid))


def _group(number: int, depth: int) -> list[tuple[bytes, bytes]]:
    asked = _expression(b"socket", (1, _be(CGROUPV2)), (2, _be(1)), (3, _be(depth)))
    return _matched(asked, struct.pack("=Q", number))


def _listed(expressions: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(_attribute(1, _text(1, name) + _attribute(2, data)) for name, data in expressions)


def _comment(slot: int) -> bytes:
    """As the nft program shows it."""
    text = b"inbounds-slot-%d\0" % slot
    return bytes([0, len(text)]) + text


def _removals(slot: int, table: bytes) -> list[tuple[int, int, bytes]]:
    return [
        (DELRULE, 0, _text(1, table) + _text(2, chain) + _attribute(3, handle))
        for chain, handle, _ in _rules(slot, table)
    ]


def _rules(slot: int, table: bytes) -> list[tuple[bytes, bytes, list[tuple[bytes, dict[int, bytes]]]]]:
    """A slot's rules as the kernel has them: chain, handle, expressions (name, attributes)."""
    for _ in range(LOOKS_MAX):
        found, whole = [], True
        with _open() as link:
            link.send(_message((NFTABLES << 8) | GETRULE, DUMP, _text(1, table), 1))
            for _, flags, data in _answers(link):
                whole = whole and not flags & INTERRUPTED
                rule = _parsed(data[4:])
                if rule.get(1, b"").rstrip(b"\0") == table and rule.get(7) == _comment(slot):
                    parts = [_parsed(data) for _, data in _split(rule.get(4, b""))]
                    expressions = [(part[1].rstrip(b"\0"), _parsed(part.get(2, b""))) for part in parts]
                    found.append((rule[2].rstrip(b"\0"), rule[3], expressions))
        if whole:
            return found
    raise OSError("the packet filter is being changed all the time by somebody else")


def _change(messages: list[tuple[int, int, bytes]]) -> None:
    """All of them or none, in one transaction."""
    if not messages:
        return
    batch = _message(BEGIN, 0, b"", 0, NFTABLES)
    for number, (kind, flags, data) in enumerate(messages, 1):
        last = ACK if number == len(messages) else 0
        batch += _message((NFTABLES << 8) | kind, flags | last, data, number)
    with _open() as link:
        link.send(batch + _message(END, 0, b"", len(messages) + 1, NFTABLES))
        for _ in _answers(link):
            pass


def _open(groups: int = 0) -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    link.settimeout(SECONDS_MAX)
    link.bind((0, groups))
    return link


def _message(kind: int, flags: int, data: bytes, number: int, resource: int = 0) -> bytes:
    """One netlink message with netfilter's header."""
    return (
        struct.pack("=IHHIIBBH", 20 + len(data), kind, REQUEST | flags, number, 0, INET, 0, socket.htons(resource))
        + data
    )


def _answers(link: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and content of what the kernel answers, up to the end of the dump or the acknowledgement. OSError."""
    while True:
        part = link.recv(PART_BYTES)
        while part:
            size, kind, flags = struct.unpack_from("=IHH", part)
            if kind in {ERROR, DONE}:
                if code := struct.unpack_from("=i", part, 16)[0]:
                    raise OSError(-code, f"nf_tables: {os.strerror(-code)}")
                return
            yield kind, flags, part[16:size]
            part = part[size + -size % 4 :]
