"""pidfd_getfd takes a copy of another process's descriptor, whatever it is of."""

CLASS = "ipc"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
taken, said = [], set()
for pid in PIDS:
    try:
        holder = os.pidfd_open(pid)
    except OSError as error:
        said.add(errno.errorcode[error.errno])
        continue
    for fd in range(8):
        answer = call(438, holder, fd, 0)  # pidfd_getfd has this number everywhere
        said.add(answer)
        if answer == "done":
            taken.append([pid, fd])
say(taken=taken, answers=sorted(said))
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    if after["said"]["taken"]:
        return "ESCAPED", f"taken: {after['said']['taken'][:5]}"
    return "BLOCKED", f"pidfd_getfd: {', '.join(after['said']['answers'])}"
