"""A unix socket of the host's, by its path: how container engines, agents and databases are spoken to."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("socket",)
CONTROL = """
def speak():
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(HOST["socket"])
        s.sendall(b"x")
        say(answer=s.recv(100).decode())
say(connected=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the socket was spoken to"
    return "BLOCKED", f"connect: {after['said']['connected']}"
