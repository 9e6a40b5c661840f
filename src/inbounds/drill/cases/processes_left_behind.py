"""A process that hides from its parent's end: a subreaper's grandchild, born beside its parent, in a group of its own."""

CLASS = "processes"
REQUIREMENT = "F1"
CONTROL = """
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
CLONE_PARENT, SIGCHLD = 0x8000, 17
if os.fork() == 0:
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if libc.syscall(ctypes.c_long(CLONE), ctypes.c_long(CLONE_PARENT | SIGCHLD), *[ctypes.c_long(0)] * 4) == 0:
        os.setsid()
        libc.prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: none
        if os.fork() == 0:
            for fd in (0, 1, 2):
                os.close(fd)
            time.sleep(15)
    os._exit(0)
time.sleep(0.3)
say(left=True)
"""
ATTACK = CONTROL


def observe(_, after):
    alive = after["alive"]
    return ("ESCAPED" if alive else "BLOCKED"), f"{alive} processes outlived the command"
