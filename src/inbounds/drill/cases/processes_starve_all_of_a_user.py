"""Priorities by user rather than by process (PRIO_USER): PID 1 is one of them (outside, of the victim alone)."""

CLASS = "processes"
REQUIREMENT = "F7"
NEEDS = ("victim",)
CONTROL = """
say(lowered=outcome(os.setpriority, os.PRIO_PROCESS, HOST["victim"], 19), nice=os.getpriority(os.PRIO_PROCESS, HOST["victim"]))
"""
ATTACK = """
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
answers = [outcome(os.setpriority, os.PRIO_USER, who, 19) for who in (0, os.getuid())] + [call(IOPRIO_SET, 3, 0, 3 << 13)]
say(lowered=", ".join(answers), nice=os.getpriority(os.PRIO_PROCESS, 1))
"""


def observe(_, after):
    if after["said"]["nice"] == 19:
        return "ESCAPED", "it was lowered"
    return "BLOCKED", f"setpriority, ioprio_set: {after['said']['lowered']}"
