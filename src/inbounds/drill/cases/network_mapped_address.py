"""An IPv4 address inside an IPv6 one: mapped, and the well-known NAT64 prefix (lists of forbidden addresses miss them)."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
def speak(address):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((address, HOST["port"]))
        s.sendall(b"x")
say(mapped=outcome(speak, "::ffff:127.0.0.1"), nat64=outcome(speak, "64:ff9b::7f00:1"))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
