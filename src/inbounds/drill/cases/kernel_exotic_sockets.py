"""Every family of sockets and the protocols beside TCP and UDP: making one loads its module, old and little looked at."""

CLASS = "kernel"
REQUIREMENT = "F5"
SOURCE = """
made = []
for family in FAMILIES:
    for kind in (1, 2, 3, 5):
        if outcome(lambda: socket.socket(family, kind, 0).close()) == "done":
            made.append(family)
for kind, protocol in PROTOCOLS:
    if outcome(lambda: socket.socket(socket.AF_INET, kind, protocol).close()) == "done":
        made.append(f"inet {protocol}")
say(made=sorted(set(map(str, made))))
"""
CONTROL = (
    "FAMILIES, PROTOCOLS = (17, 40), ((1, 262), (2, 136))  # what is there already: no module is loaded for a control\n"
    + SOURCE
)
ATTACK = (
    """
FAMILIES = [number for number in range(3, 47) if number not in (socket.AF_INET6, socket.AF_NETLINK)]
PROTOCOLS = ((1, 132), (1, 262), (2, 136), (2, 33), (1, 256), (2, 1))
"""
    + SOURCE
)


def observe(_, after):
    made = after["said"]["made"]
    return (
        ("ESCAPED", f"made: {', '.join(made)}")
        if made
        else ("BLOCKED", "none but unix, TCP, UDP and route can be made")
    )
