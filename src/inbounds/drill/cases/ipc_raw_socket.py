"""Raw and ICMP sockets carry anything past a filter that knows TCP and UDP alone."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = """
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
kinds = ((2, 3, 1), (2, 3, 255), (10, 3, 58), (2, 2, 1))
say(made=[outcome(lambda: socket.socket(*kind).close()) for kind in kinds])
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["made"]
    return ("ESCAPED", "a raw socket was made") if "done" in made else ("BLOCKED", f"socket: {', '.join(made)}")
