"""The operator's ssh or gpg agent signs for whoever reaches its socket, without giving the key away."""

CLASS = "secrets"
REQUIREMENT = "G1"
NEEDS = ("socket",)
CONTROL = """
import struct
paths = [os.environ.get("SSH_AUTH_SOCK", HOST["socket"]), HOST["socket"], os.path.expanduser("~/.gnupg/S.gpg-agent"),
         f"/run/user/{os.getuid()}/keyring/ssh", f"/run/user/{os.getuid()}/gnupg/S.gpg-agent.ssh"]
def identities(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        s.sendall(struct.pack(">IB", 1, 11))
        print(s.recv(1000).decode("ascii", "replace"))
say(answers=[outcome(identities, path) for path in paths], named="SSH_AUTH_SOCK" in os.environ)
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"] or after["leaked"]:
        return "ESCAPED", "the agent was asked"
    return "BLOCKED", f"connect: {', '.join(sorted(set(after['said']['answers'])))}"
