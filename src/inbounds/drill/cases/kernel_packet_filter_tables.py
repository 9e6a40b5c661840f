"""nf_tables in a network namespace of one's own: the most used way to root of recent years (CVE-2022-32250, CVE-2024-1086)."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
libc.unshare(0x10000000 | 0x40000000)
def ask():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
        s.settimeout(3)
        s.send(struct.pack("=IHHIIBBH", 20, 10 << 8 | 16, 0x5, 1, 0, 0, 0, 0))  # NFT_MSG_GETGEN
        s.recv(4096)
say(asked=outcome(ask))
"""
ATTACK = CONTROL


def observe(_, after):
    asked = after["said"]["asked"]
    return ("ESCAPED", "nf_tables answered") if asked == "done" else ("BLOCKED", f"unshare, socket: {asked}")
