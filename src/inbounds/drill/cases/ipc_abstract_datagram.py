"""A datagram to an abstract address: filters that hook connect() see none of it."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("abstract",)
CONTROL = """
def send():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", HOST["abstract_datagram"])
say(sent=outcome(send))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the datagram arrived"
    return "BLOCKED", f"sendto: {after['said']['sent']}"
