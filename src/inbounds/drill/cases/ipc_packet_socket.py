"""AF_PACKET sees and makes frames below every rule (CVE-2020-14386 and others), with the rights of a new namespace."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = """
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
say(made=[outcome(lambda: socket.socket(family, kind, 0).close()) for family, kind in ((17, 3), (17, 2), (44, 3))])
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["made"]
    return ("ESCAPED", "frames can be seen") if "done" in made else ("BLOCKED", f"socket: {', '.join(made)}")
