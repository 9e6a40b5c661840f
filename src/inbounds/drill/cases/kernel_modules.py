"""A kernel module or another kernel is loaded (reached, if the call looks at what it is given; nothing is)."""

CLASS = "kernel"
REQUIREMENT = "F1"
CONTROL = """
INIT, FINIT, DELETE, KEXEC, KEXEC_FILE = {
    "x86_64": (175, 313, 176, 246, 320), "aarch64": (105, 273, 106, 104, 294)
}[os.uname().machine]
say(answers=[call(INIT, b"", 0, b""), call(FINIT, -1, b"", 0), call(DELETE, b"inbounds_none", 0), call(KEXEC, 0, 99, 0, 0),
             call(KEXEC_FILE, -1, -1, 0, b"", 0)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    reached = [answer for answer in answers if answer not in ("EPERM", "ENOSYS")]
    return ("ESCAPED", f"reached: {reached}") if reached else ("BLOCKED", f"they say: {', '.join(answers)}")
