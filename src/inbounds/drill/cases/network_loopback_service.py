"""A service on the host's loopback is spoken to (a database, a debugger, an agent's socket); every sandbox's first test."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
def speak():
    with socket.create_connection(("127.0.0.1", HOST["port"]), timeout=5) as s:
        s.sendall(b"x")
        s.recv(1)
say(tcp=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    return "BLOCKED", f"connect: {after['said'].get('tcp')}"
