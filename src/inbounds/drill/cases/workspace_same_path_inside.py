"""The outside directory's path is made anew where writing is allowed: a /tmp shared with the host would be the host's."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
def write():
    os.makedirs(HOST["outside"], exist_ok=True)
    with open(HOST["outside"] + "/made", "w") as file:
        file.write("x")
say(made=outcome(write))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "the host's directory changed"
    made = after["said"].get("made")
    return ("CONTAINED", "made in the jail's own /tmp") if made == "done" else ("BLOCKED", f"making it: {made}")
