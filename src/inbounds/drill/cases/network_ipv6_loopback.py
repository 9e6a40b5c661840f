"""The host's loopback over IPv6, which filters written for IPv4 forget."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
def speak():
    with socket.create_connection(("::1", HOST["port6"]), timeout=5) as s:
        s.sendall(b"x")
say(tcp=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
