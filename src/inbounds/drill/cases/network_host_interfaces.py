"""Another address of the machine than the loopback's is tried from inside: its own network, and the way to the next."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
names = [name for _, name in socket.if_nameindex()]
def route():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("192.0.2.1", 9))  # sends nothing: the kernel chooses a way, if it has one
        return s.getsockname()[0]
def speak():
    with socket.create_connection(("127.0.0.1", HOST["port"]), timeout=3) as s:
        s.sendall(b"x")
try:
    own = route()
except OSError as error:
    own = errno.errorcode.get(error.errno, "?")
say(interfaces=names, own=own, loopback=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    said = after["said"]
    if after["received"] > before["received"] or set(said.get("interfaces") or ()) - {"lo"}:
        return "ESCAPED", f"{said}"
    return "BLOCKED", f"{said}"
