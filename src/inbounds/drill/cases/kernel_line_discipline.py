"""TIOCSETD on a terminal of one's own loads line disciplines, the kernel's forgotten corner (n_hdlc, CVE-2017-2636; n_gsm)."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import fcntl, struct
master, slave = os.openpty()
say(set=[outcome(fcntl.ioctl, slave, 0x5423 | high, struct.pack("i", number)) for high in (0, 1 << 32) for number in (27, 13, 21)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["set"]
    return ("ESCAPED", "one was set") if "done" in answers else ("BLOCKED", f"TIOCSETD: {sorted(set(answers))}")
