"""Every file of PID 1 in /proc that shows or changes a process: it is the one unfiltered helper that a jail can name."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
READ = ("environ", "maps", "smaps", "mem", "auxv", "syscall", "stack", "io", "fd/0", "fdinfo/0", "map_files", "ns/user",
        "exe", "root/etc", "cwd/.", "mountinfo", "personality", "pagemap", "timers")
WRITE = ("mem", "oom_score_adj", "autogroup", "coredump_filter", "comm", "sched", "timerslack_ns", "clear_refs", "limits",
         "attr/current", "loginuid", "setgroups", "uid_map", "fd/0", "make-it-fail")
def one(name, flags):
    path = f"/proc/{PID}/{name}"
    if name in ("exe", "ns/user", "fd/0", "root/etc", "cwd/.") and flags == os.O_RDONLY:
        os.stat(path)
    elif name == "map_files":
        os.listdir(path)
    else:
        fd = os.open(path, flags | os.O_NONBLOCK)
        os.read(fd, 1) if flags == os.O_RDONLY and name != "mem" else None
        os.close(fd)
opened = [name for name in READ if outcome(one, name, os.O_RDONLY) == "done"]
opened += [f"{name} for writing" for name in WRITE if outcome(one, name, os.O_WRONLY) == "done"]
say(opened=opened)
"""
CONTROL = 'PID = HOST["victim"]\n' + SOURCE
ATTACK = "PID = 1\n" + SOURCE


def observe(_, after):
    # what mounts a jail has is no secret to those inside it
    opened = [name for name in after["said"]["opened"] if name != "mountinfo"]
    return ("ESCAPED", f"opened: {', '.join(opened)}") if opened else ("BLOCKED", "none of its files could be opened")
