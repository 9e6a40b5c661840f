"""Every family of sockets and the protocols beside TCP and UDP: making one loads its module, old and little looked at."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
made = []
for family in range(3, 47):
    if family in (10, 16):
        continue
    for kind in (1, 2, 3, 5):
        if outcome(lambda: socket.socket(family, kind, 0).close()) == "done":
            made.append(family)
for kind, protocol in ((1, 132), (1, 262), (2, 136), (2, 33), (1, 256), (2, 1)):
    if outcome(lambda: socket.socket(socket.AF_INET, kind, protocol).close()) == "done":
        made.append(f"inet {protocol}")
say(made=sorted(set(map(str, made))))
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["made"]
    return (
        ("ESCAPED", f"made: {', '.join(made)}")
        if made
        else ("BLOCKED", "none but unix, TCP, UDP and route can be made")
    )
