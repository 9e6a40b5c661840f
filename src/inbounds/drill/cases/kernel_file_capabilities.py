"""Capabilities are written onto a file: whoever executes it has them."""

CLASS = "kernel"
REQUIREMENT = "F1"
SOURCE = """
import struct
open(WORK + "/able", "w").close()
value = struct.pack("=IIIII", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)  # version 2, effective, everything
say(set=outcome(os.setxattr, WORK + "/able", "security.capability", value))
"""
CONTROL = (
    """
uid, gid = os.getuid(), os.getgid()
if libc.unshare(0x10000000) == 0:  # good in this namespace alone
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        open(f"/proc/self/{name}", "w").write(text)
"""
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    answer = after["said"]["set"]
    return ("ESCAPED", "they were written") if answer == "done" else ("BLOCKED", f"setxattr: {answer}")
