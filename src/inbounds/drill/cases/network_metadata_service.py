"""A cloud's metadata service at its link-local address, which hands out the machine's own credentials."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
# the host's listener stands in for the service: it answers everybody with a secret
CONTROL = """
def ask(address):
    with socket.create_connection(address, timeout=3) as s:
        s.sendall(b"GET /latest/meta-data/iam/ HTTP/1.0\\r\\n\\r\\n")
        say(credentials=s.recv(200).decode(errors="replace"))
say(stand_in=outcome(ask, ("127.0.0.1", HOST["port"])))
"""
ATTACK = (
    CONTROL
    + """
for name, host in (("aws", "169.254.169.254"), ("ecs", "169.254.170.2"), ("v6", "fd00:ec2::254")):
    say(**{name: outcome(ask, (host, 80))})
"""
)


def observe(_, after):
    said = after["said"]
    if after["leaked"] or said.get("credentials"):
        return "ESCAPED", "it answered"
    return "BLOCKED", f"{said}"
