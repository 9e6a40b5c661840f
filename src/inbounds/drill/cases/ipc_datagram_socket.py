"""A datagram to a unix socket of the host's, as to /dev/log or systemd's notification socket: no connection is needed."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("socket",)
SOURCE = """
def send(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1", path)
say(sent=[outcome(send, path) for path in PATHS])
"""
CONTROL = 'PATHS = [HOST["datagram"]]\n' + SOURCE
ATTACK = 'PATHS = [HOST["datagram"], "/dev/log", "/run/systemd/notify", "/run/systemd/journal/socket"]\n' + SOURCE


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the datagram arrived"
    return "BLOCKED", f"sendto: {', '.join(after['said']['sent'])}"
