"""The loopback by its other spellings: 127.1, 0.0.0.0, decimal, hexadecimal, localhost and names below it."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
def speak(host):
    with socket.create_connection((host, HOST["port"]), timeout=3) as s:
        s.sendall(b"x")
names = ("127.1", "0.0.0.0", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "ip6-localhost")
say(**{name: outcome(speak, name) for name in names})
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
