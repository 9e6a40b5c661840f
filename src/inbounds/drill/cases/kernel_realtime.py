"""Real-time scheduling, before everything else on a processor (an ordinary user has it only where limits.conf gives it)."""

CLASS = "kernel"
REQUIREMENT = "F7"
CONTROL = """
say(answers=[outcome(os.sched_setscheduler, 0, policy, os.sched_param(1)) for policy in (os.SCHED_FIFO, os.SCHED_RR)]
    + [outcome(os.setpriority, os.PRIO_PROCESS, 0, -5)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "it was given") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
