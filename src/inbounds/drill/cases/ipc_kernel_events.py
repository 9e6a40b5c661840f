"""Netlink's device events and audit records are the host's own, whatever namespace one has."""

CLASS = "ipc"
REQUIREMENT = "F6"
SOURCE = """
def bind(protocol):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
        s.bind((0, 1))
def make(protocol):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
say(made={name: outcome(make, number) for name, number in FAMILIES.items()}, heard=outcome(bind, 15))
"""
CONTROL = 'FAMILIES = {"uevent": 15, "audit": 9}  # what is there already: no module is loaded for a control\n' + SOURCE
ATTACK = (
    'FAMILIES = {"uevent": 15, "audit": 9, "diag": 4, "connector": 11, "generic": 16, "netfilter": 12, "crypto": 21}\n'
    + SOURCE
)


def observe(_, after):
    made = [name for name, answer in after["said"]["made"].items() if answer == "done"]
    if made:
        return "ESCAPED", f"sockets made: {', '.join(made)}"
    return "BLOCKED", f"socket: {', '.join(sorted(set(after['said']['made'].values())))}"
