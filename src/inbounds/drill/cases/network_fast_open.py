"""sendto with MSG_FASTOPEN connects without connect(): a known hole of rules that look at that call alone."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
MSG_FASTOPEN = 0x20000000
def speak():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.sendto(b"x", MSG_FASTOPEN, ("127.0.0.1", HOST["port"]))
say(fast_open=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
