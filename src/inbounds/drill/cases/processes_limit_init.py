"""prlimit on PID 1: without descriptors it cannot count memory, without processor time it cannot watch a deadline."""

CLASS = "processes"
REQUIREMENT = "F7"
NEEDS = ("victim",)
SOURCE = """
import resource
limits = (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_NPROC)
def lower(what):
    soft, hard = resource.prlimit(PID, what)
    resource.prlimit(PID, what, (3, hard))
say(answers=[outcome(lower, what) for what in limits])
"""
CONTROL = 'PID = HOST["victim"]\n' + SOURCE
ATTACK = "PID = 1\n" + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "its limits were set") if "done" in answers else ("BLOCKED", f"prlimit: {', '.join(answers)}")
