"""The next to be killed when memory runs out is made somebody else: PID 1, or a process of the host."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
def write(pid, score):
    with open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write(score)
say(answers=[outcome(write, pid, "1000") for pid in PIDS] + [outcome(write, "self", "-1000")])
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "a score was set") if "done" in answers else ("BLOCKED", f"write: {', '.join(answers)}")
