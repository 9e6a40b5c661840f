"""The code under test reaches for the host: a tester's jail may use servers of its own, and its own only."""

CLASS = "network"
REQUIREMENT = "F6"
ROLE = "tester"
NEEDS = ("listener",)
CONTROL = """
def speak():
    with socket.create_connection(("127.0.0.1", HOST["port"]), timeout=5) as s:
        s.sendall(b"x")
def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", HOST["udp_port"]))
        s.send(b"x")
        time.sleep(0.1)
        s.send(b"x")
say(tcp=outcome(speak), udp=outcome(send))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
