"""No content is changed, only what is around it: mode, times and extended attributes of a file outside."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
path = HOST["outside"] + "/canary"
say(mode=outcome(os.chmod, path, 0o600), times=outcome(os.utime, path, (0, 0)),
    attribute=outcome(os.setxattr, path, "user.inbounds", b"x"))
"""
ATTACK = CONTROL


def observe(before, after):
    said = {name: after["said"].get(name) for name in ("mode", "times", "attribute")}
    return "ESCAPED" if after["outside"] != before["outside"] or "done" in said.values() else "BLOCKED", f"{said}"
