"""TIOCSETD on a terminal of one's own loads line disciplines, the kernel's forgotten corner (n_hdlc, CVE-2017-2636; n_gsm)."""

CLASS = "kernel"
REQUIREMENT = "F5"
SOURCE = """
import fcntl, struct
master, slave = os.openpty()
answers = [outcome(fcntl.ioctl, slave, 0x5423 | high, struct.pack("i", n)) for high in (0, 1 << 32) for n in NUMBERS]
say(set=answers)
"""
CONTROL = "NUMBERS = (27,)  # the one that does nothing\n" + SOURCE
ATTACK = "NUMBERS = (27, 13, 21, 3, 5)\n" + SOURCE


def observe(_, after):
    answers = after["said"]["set"]
    return ("ESCAPED", "one was set") if "done" in answers else ("BLOCKED", f"TIOCSETD: {sorted(set(answers))}")
