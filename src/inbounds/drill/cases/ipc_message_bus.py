"""The session bus, at the address that the environment names or at the usual place: systemd-run starts anything there."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("socket",)
CONTROL = r"""
address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "unix:path=" + HOST["socket"]).partition("path=")[2].split(",")[0]
def hello(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        s.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        s.recv(100)
tried = {path: outcome(hello, path) for path in (address, "\0/tmp/dbus-session")}
say(tried=list(tried.values()))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the bus was reached"
    return "BLOCKED", f"connect: {', '.join(after['said']['tried'])}"
