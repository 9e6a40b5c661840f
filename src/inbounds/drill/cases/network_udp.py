"""Datagrams to the host's loopback, connected and not: filters of TCP's connect do not see them."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("127.0.0.1", HOST["udp_port"]))
def connected():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", HOST["udp_port"]))
        s.send(b"x")
        time.sleep(0.1)
        s.send(b"x")  # a refusal of the first one shows here
say(send=outcome(send), connected=outcome(connected))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
