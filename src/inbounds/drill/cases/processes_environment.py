"""The environment of every process, the supervisor's included: where operators keep their tokens."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
for pid in PIDS:
    def read():
        say(**{f"environ of {pid}": open(f"/proc/{pid}/environ").read()[:1000]})
    say(read=outcome(read))
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = {1, HOST["victim"], *map(int, filter(str.isdigit, os.listdir("/proc")))} - {os.getpid()}\n' + SOURCE


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "the victim's environment was read"
    return "BLOCKED", f"the last of them: {after['said']['read']}"
