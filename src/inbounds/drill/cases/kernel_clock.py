"""The clock that deadlines and signatures are read from: looked into for setting (settimeofday without a time, adjtimex)."""

CLASS = "kernel"
REQUIREMENT = "F7"
CONTROL = """
SETTIMEOFDAY, SETTIME, ADJTIME, ADJTIMEX = {
    "x86_64": (164, 227, 305, 159), "aarch64": (170, 112, 266, 171)
}[os.uname().machine]
nothing = ctypes.create_string_buffer(208)
say(answers=[call(SETTIMEOFDAY, 0, 0), call(ADJTIMEX, nothing), call(ADJTIME, 0, nothing), call(SETTIME, 0, 0)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    reached = [answer for answer in answers if answer not in ("EPERM", "ENOSYS")]
    return ("ESCAPED", f"reached: {reached}") if reached else ("BLOCKED", f"they say: {', '.join(answers)}")
