"""A user namespace of one's own makes anybody its root, and root of every subsystem that asks no further."""

CLASS = "processes"
REQUIREMENT = "F1"
CONTROL = r"""
say(unshare=outcome(lambda: libc.unshare(0x10000000) and (_ for _ in ()).throw(OSError(ctypes.get_errno(), ""))))
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
say(capabilities=int(status["CapEff"], 16))
"""
ATTACK = CONTROL


def observe(_, after):
    if after["said"]["unshare"] == "done" or after["said"]["capabilities"]:
        return "ESCAPED", "root of a new namespace"
    return "BLOCKED", f"unshare: {after['said']['unshare']}"
