"""Another process's root and working directory, through /proc/PID/root and /proc/PID/cwd: a way past any mount namespace."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
answers = []
for pid in PIDS:
    for way in (f"/proc/{pid}/cwd/planted", f"/proc/{pid}/root{HOST['outside']}/planted"):
        answers.append(outcome(lambda: os.close(os.open(way, os.O_CREAT | os.O_WRONLY, 0o600))))
say(answers=answers)
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = {1, HOST["victim"], *map(int, filter(str.isdigit, os.listdir("/proc")))} - {os.getpid()}\n' + SOURCE


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "a file was written through another process's eyes"
    return "BLOCKED", f"open: {', '.join(sorted(set(after['said']['answers'])))}"
