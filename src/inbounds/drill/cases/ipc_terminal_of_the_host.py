"""Characters are written to a terminal at which somebody sits: escape sequences, or a question that he will answer."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("terminal",)
CONTROL = r"""
def write(path):
    with open(path, "wb", buffering=0) as terminal:
        terminal.write(b"\x1b]0;title\x07approve? ")
names = os.listdir("/dev/pts")
say(written=outcome(write, HOST["terminal"]), seen=len(names))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "it was shown to whoever sits there"
    return "BLOCKED", f"open: {after['said']['written']}"
