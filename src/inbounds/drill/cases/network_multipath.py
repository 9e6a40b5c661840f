"""Multipath TCP to an ordinary TCP service: another protocol number, the same way out (Landlock knows TCP's)."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
IPPROTO_MPTCP = 262
def speak():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as s:
        s.settimeout(3)
        s.connect(("127.0.0.1", HOST["port"]))
        s.sendall(b"x")
say(multipath=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
