"""setns: the namespaces of PID 1, of a child, or by a process descriptor, are entered."""

CLASS = "processes"
REQUIREMENT = "F1"
CONTROL = """
child = os.fork()
if child == 0:
    libc.unshare(0x10000000 | 0x4000000)
    time.sleep(10)
    os._exit(0)
time.sleep(0.3)
answers = []
for pid in (child, 1):
    for kind in ("user", "uts", "mnt", "pid", "net"):
        try:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        except OSError as error:
            answers.append(errno.errorcode[error.errno])
            continue
        answers.append("done" if libc.setns(fd, 0) == 0 else errno.errorcode[ctypes.get_errno()])
    if pid != child:
        break
    answers.append("done" if libc.setns(os.pidfd_open(pid), 0x10000000) == 0 else errno.errorcode[ctypes.get_errno()])
os.kill(child, 9)
say(answers=answers)
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "one was entered") if "done" in answers else ("BLOCKED", f"they say: {sorted(set(answers))}")
