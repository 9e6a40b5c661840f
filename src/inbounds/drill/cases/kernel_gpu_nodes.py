"""A GPU's driver is reached: its nodes in /dev (nvidia, dri, kfd, accel), or one made by its number (195 is NVIDIA's).

A host without a GPU has other drivers' nodes, which stand in for it: only memory's, terminals' and pipes' are harmless.
"""

CLASS = "kernel"
REQUIREMENT = "E7"
CONTROL = """
import stat
HARMLESS = {1, 5, *range(136, 144)}  # null and its like; tty and ptmx; pseudo-terminals
drivers, names = [], []
for directory, _, files in os.walk("/dev"):
    for path in (os.path.join(directory, name) for name in files):
        try:
            about = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISCHR(about.st_mode) and os.major(about.st_rdev) not in HARMLESS:
            drivers.append(path)
        if path.startswith(("/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/accel/")):
            names.append(path)
made = outcome(os.mknod, WORK + "/nvidia0", stat.S_IFCHR | 0o666, os.makedev(195, 0))
say(drivers=len(drivers), first=sorted(drivers)[:3], names=sorted(names)[:3], made=made)
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["names"] or said["drivers"]:
        return "ESCAPED", f"there: {', '.join(said['names'] or said['first'])}"
    return ("ESCAPED", "a GPU's node was made") if said["made"] == "done" else ("BLOCKED", f"mknod: {said['made']}")
