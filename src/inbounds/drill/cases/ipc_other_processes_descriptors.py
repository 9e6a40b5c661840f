"""Pipes and files that other processes hold, opened once more through /proc/PID/fd."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("victim",)
SOURCE = """
opened = []
for pid in PIDS:
    for fd in range(32):
        for flags in (os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK):
            if outcome(lambda: os.close(os.open(f"/proc/{pid}/fd/{fd}", flags))) == "done":
                opened.append([pid, fd])
say(opened=opened)
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = {1, HOST["victim"], *map(int, filter(str.isdigit, os.listdir("/proc")))} - {os.getpid()}\n' + SOURCE


def observe(_, after):
    opened = after["said"]["opened"]
    return ("ESCAPED", f"opened {opened[:5]}") if opened else ("BLOCKED", "no process's descriptors could be opened")
