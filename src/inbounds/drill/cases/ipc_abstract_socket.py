"""An abstract unix socket, which no file permission guards: X servers, D-Bus, containerd's shim (CVE-2020-15257)."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("abstract",)
CONTROL = """
def speak():
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(HOST["abstract"])
        s.sendall(b"x")
say(connected=outcome(speak))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the abstract socket was spoken to"
    return "BLOCKED", f"connect: {after['said']['connected']}"
