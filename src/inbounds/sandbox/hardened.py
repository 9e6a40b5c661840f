"""The host service's client (ADR 11): is it there, may this user use it, what does it say that it enforces.

What answers must be root: whoever else listens at that place is refused. Knows nothing of runs.
"""

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.host import protocol
from inbounds.sandbox.maturity import INSTALL
from inbounds.sandbox.spec import ENFORCED, HARDENED

SOCKET = f"{protocol.RUN_DIRECTORY}/{protocol.SOCKET_NAME}"
PLACE = "INBOUNDS_HOST_SOCKET"  # where it is, never whether it is trusted: what answers there must be root
GROUP = "inbounds-operators"
ANSWER_SECONDS_MAX = 20


def place() -> str:
    """The service's socket."""
    return os.environ.get(PLACE) or SOCKET


def connect(path: str = "", owner: int = 0) -> socket.socket:
    """A connection to the service; HostError with what to type. `owner`: whose process must answer."""
    path = path or place()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(ANSWER_SECONDS_MAX)
        made.connect(path)
        _, uid, _ = struct.unpack("iII", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except FileNotFoundError:
        made.close()
        raise HostError("the host service is not installed", where=path, fix=INSTALL) from None
    except PermissionError:
        made.close()
        raise HostError(
            f"you are not in the group {GROUP}, or logged in before you were", where=path, fix=INSTALL
        ) from None
    except OSError as error:
        made.close()
        raise HostError(f"the host service does not answer ({error.strerror})", where=path, fix=INSTALL) from None
    if uid != owner:
        made.close()
        raise HostError(f"what answers belongs to user {uid}, not to root", where=path, fix=INSTALL)
    return made


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether hardened runs can be had here. enforcement: mechanism of HARDENED -> "enforced" or "absent: why"."""

    problem: str = ""
    fix: str = ""
    enforcement: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the service answered and serves this user."""
        return not self.problem


def _absent(why: str, fix: str) -> Reach:
    return Reach(why, fix, dict.fromkeys(HARDENED, f"absent: {why}"))


UNASKED = _absent("policy says rootless", "")


# Which of the service's bits stands for which mechanisms.
BITS: dict[protocol.Mechanism, tuple[str, ...]] = {
    protocol.Mechanism.USER: ("dedicated_user",),
    protocol.Mechanism.IMAGE: ("volume_image", "bytes_limit", "inodes_limit"),
    protocol.Mechanism.ENCRYPTED: ("encryption",),
    protocol.Mechanism.ACL: ("acl",),
    protocol.Mechanism.MEMORY: ("cgroup_memory",),
    protocol.Mechanism.SWAP: ("cgroup_swap",),
    protocol.Mechanism.PROCESSES: ("cgroup_processes",),
    protocol.Mechanism.CPU: ("cgroup_cpu",),
    protocol.Mechanism.IO: ("cgroup_io",),
    protocol.Mechanism.FREEZE: ("freezer",),
    protocol.Mechanism.FILTER: ("packet_filter",),
    protocol.Mechanism.EVENTS: ("file_events",),
    protocol.Mechanism.WATCHDOG: ("watchdog",),
}


def named(bits: int) -> dict[str, str]:
    """The service's bits as mechanisms: name -> "enforced" or "absent: why"."""
    have = {name for bit, names in BITS.items() if bits & bit for name in names}
    return {name: ENFORCED if name in have else "absent: the host service has it not in force" for name in HARDENED}


def ask(connection: socket.socket, op: protocol.Op, slot: int = protocol.NO_SLOT, fds: Sequence[int] = (),
        **numbers: int) -> tuple[protocol.Reply, list[int]]:  # fmt: skip
    """One request and its answer with the descriptors beside it; HostError where the service does not answer."""
    received: list[int] = []
    try:
        socket.send_fds(connection, [protocol.pack_request(op, slot, **numbers)], list(fds))
        answer, received, flags, _ = socket.recv_fds(connection, protocol.MESSAGE_BYTES + 1, 2)
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            answer = b""
        return protocol.unpack_reply(op, answer), received
    except (OSError, protocol.ProtocolError) as error:
        for fd in received:
            os.close(fd)
        raise HostError(f"the host service failed at {op.name}: {error}", fix="inbounds doctor") from error


def reach(path: str = "", owner: int = 0) -> Reach:
    """Ask the service what it can give; never raises for what a host lacks."""
    try:
        with connect(path, owner) as connection:
            reply, _ = ask(connection, protocol.Op.HELLO)
    except HostError as error:
        return _absent(error.found, error.fix)
    if reply.errno or reply.numbers["version"] != protocol.VERSION:
        return _absent("the host service is of another version", INSTALL)
    return Reach(enforcement=named(reply.numbers["mechanisms"]))
