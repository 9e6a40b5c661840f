"""Netlink's route family changes the network: an address more on an interface (outside, in a namespace of its own)."""

CLASS = "ipc"
REQUIREMENT = "F6"
SOURCE = """
import struct
RTM_NEWADDR = 20
def add():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        # ifaddrmsg: inet, /32, on the first interface, which is the loopback; IFA_LOCAL 127.9.9.9
        body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 127, 9, 9, 9)
        s.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWADDR, 0x605, 1, 0) + body)
        code = struct.unpack_from("=i", s.recv(4096), 16)[0]
        if code:
            raise OSError(-code, "refused")
say(added=outcome(add))
"""
CONTROL = (
    """
if libc.unshare(0x10000000 | 0x40000000):  # a user and a network namespace: the operator's own network is left alone
    sys.exit("no namespaces here")
"""
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    added = after["said"]["added"]
    return ("ESCAPED", "an address was added") if added == "done" else ("BLOCKED", f"RTM_NEWADDR: {added}")
