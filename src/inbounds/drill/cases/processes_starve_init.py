"""PID 1 has the jail's user: it is made idle and pinned behind busy processes, so that deadline and memory go unwatched."""

CLASS = "processes"
REQUIREMENT = "F7"
NEEDS = ("victim",)
SOURCE = """
answers = [
    outcome(os.sched_setaffinity, PID, {min(os.sched_getaffinity(0))}),
    outcome(os.setpriority, os.PRIO_PROCESS, PID, 19),
    outcome(os.sched_setscheduler, PID, os.SCHED_IDLE, os.sched_param(0)),
    call({"x86_64": 251, "aarch64": 30}[os.uname().machine], 1, PID, 3 << 13),  # ioprio_set: idle
]
say(answers=answers)
"""
CONTROL = 'PID = HOST["victim"]\n' + SOURCE
ATTACK = "PID = 1\n" + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "it can be starved") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
