"""Device nodes are made and opened: memory, disks, null (mknod; a whiteout is what an ordinary user may make)."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import stat
made = []
for number, (kind, major, minor) in enumerate(
    ((stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 0), (stat.S_IFCHR, 10, 229), (stat.S_IFCHR, 0, 0))
):
    path = f"{WORK}/node{number}"
    answer = outcome(os.mknod, path, kind | 0o600, os.makedev(major, minor))
    made.append(answer)
say(made=made)
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["made"]
    return ("ESCAPED", "nodes were made") if "done" in made else ("BLOCKED", f"mknod: {', '.join(made)}")
