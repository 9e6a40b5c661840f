"""TIOCSTI puts characters into a terminal's input, where a shell outside would execute them (CVE-2017-5226)."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = """
import fcntl
TIOCSTI, TIOCSCTTY = 0x5412, 0x540E
master, slave = os.openpty()
if os.fork() == 0:
    os.setsid()
    outcome(fcntl.ioctl, slave, TIOCSCTTY, 0)
    say(pushed=[outcome(fcntl.ioctl, slave, number, b"x") for number in (TIOCSTI, TIOCSTI | 1 << 32)])
    os._exit(0)
os.wait()
"""
ATTACK = CONTROL


def observe(_, after):
    pushed = after["said"]["pushed"]
    return ("ESCAPED", "input was pushed") if "done" in pushed else ("BLOCKED", f"TIOCSTI: {', '.join(pushed)}")
