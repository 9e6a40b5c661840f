"""/sys and the file systems below it: devices, firmware, tracing, debugging, power; programs that the kernel starts."""

CLASS = "kernel"
REQUIREMENT = "F2"
CONTROL = """
NAMES = ("/sys/kernel", "/sys/class/net", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/firmware",
         "/sys/devices/virtual/dmi/id", "/sys/block", "/sys/power", "/sys/module", "/boot", "/proc/bus/pci", "/proc/scsi")
say(listed=[name for name in NAMES if outcome(os.listdir, name) == "done" and os.listdir(name)],
    opened=[name for name in ("/sys/kernel/uevent_helper", "/sys/power/state")
            if outcome(lambda: os.close(os.open(name, os.O_WRONLY))) == "done"])
"""
ATTACK = CONTROL


def observe(_, after):
    listed = [name for name in after["said"]["listed"] if name.startswith(("/sys", "/boot"))]
    if listed or after["said"]["opened"]:
        return "ESCAPED", f"listed: {', '.join(listed)}"
    return "BLOCKED", "neither /sys nor /boot is there"
