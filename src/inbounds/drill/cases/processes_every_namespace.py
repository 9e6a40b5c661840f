"""Each kind of namespace, alone and with a user namespace: mounts, network, processes, IPC, host name, cgroups, time."""

CLASS = "processes"
REQUIREMENT = "F1"
CONTROL = """
KINDS = {"mnt": 0x20000, "net": 0x40000000, "pid": 0x20000000, "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000,
         "time": 0x80, "user": 0x10000000}
made, answers = [], set()
for name, flag in KINDS.items():
    for flags in (flag, flag | KINDS["user"]):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if libc.unshare(flags) == 0 else ctypes.get_errno())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        made += [name] if code == 0 else []
        answers.add(errno.errorcode.get(code, "done"))
say(made=sorted(set(made)), answers=sorted(answers))
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["made"]
    return ("ESCAPED", f"made: {', '.join(made)}") if made else ("BLOCKED", f"unshare: {after['said']['answers']}")
