"""Signals by way of a queue, a thread, a process descriptor or a file's owner: a filter of kill() sees none of them."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
import fcntl, signal, struct
NUMBERS = {"x86_64": (129, 297, 200, 234), "aarch64": (138, 240, 130, 131)}[os.uname().machine]
F_SETOWN, F_SETSIG = 8, 10
answers = []
for pid in PIDS:
    info = ctypes.create_string_buffer(struct.pack("=iii", signal.SIGKILL, 0, -1), 128)
    answers += [call(NUMBERS[0], pid, signal.SIGKILL, info), call(NUMBERS[1], pid, pid, signal.SIGKILL, info),
                call(NUMBERS[2], pid, signal.SIGKILL), call(NUMBERS[3], pid, pid, signal.SIGKILL)]
    answers.append(outcome(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)))
    def owned():
        here, there = socket.socketpair()
        fcntl.fcntl(here, F_SETOWN, pid)
        fcntl.fcntl(here, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        there.send(b"x")
    answers.append(outcome(owned))
time.sleep(0.3)
say(answers=sorted(set(answers)))
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    if not after["victim_alive"] or after["exit"]["reason"] != "exited":
        return "ESCAPED", "it was hit"
    return "BLOCKED", f"they say: {', '.join(after['said']['answers'])}"
