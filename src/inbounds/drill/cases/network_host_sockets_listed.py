"""What listens on the host, and with whom it talks, is read from /proc/net and by netlink: where a next attack begins."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
import struct
def listed():
    return any(f":{HOST['port']:04X} " in line for line in open("/proc/net/tcp"))
def diagnosed():
    NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP = 4, 20, 0x301
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as s:
        s.settimeout(3)
        body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + bytes(48)
        s.send(struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, DUMP, 1, 0) + body)
        port = struct.pack("!H", HOST["port"])
        return port in b"".join(iter(lambda: _part(s), b""))
def _part(s):
    part = s.recv(65536)
    return b"" if struct.unpack_from("=H", part, 4)[0] in (2, 3) else part
def said(function):
    try:
        return function()
    except OSError as error:
        return errno.errorcode.get(error.errno, "?")
say(proc=said(listed), netlink=said(diagnosed))
"""
ATTACK = CONTROL


def observe(_, after):
    said = {name: after["said"].get(name) for name in ("proc", "netlink")}
    return "ESCAPED" if True in said.values() else "BLOCKED", f"{said}"
