"""Who works on this machine and what it is called: accounts, its name, its hardware, its kernel's command line."""

import os

CLASS = "secrets"
REQUIREMENT = "B6"
CONTROL = """
def lines(path):
    try:
        return len(open(path).read().splitlines())
    except OSError:
        return 0
say(accounts=lines("/etc/passwd"), command_line=lines("/proc/cmdline"), keys=lines("/proc/keys"), name=os.uname().nodename,
    hardware=outcome(os.listdir, "/sys/class/dmi/id"))
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    seen = [
        name
        for name, wrong in (
            ("accounts", said["accounts"] > 2),
            ("the kernel's command line", said["command_line"]),
            ("keys", said["keys"]),
            ("hardware", said["hardware"] == "done"),
            ("the name", said["name"] == os.uname().nodename),
        )
        if wrong
    ]
    return ("ESCAPED", f"seen: {', '.join(seen)}") if seen else ("BLOCKED", "names and accounts are the jail's own")
