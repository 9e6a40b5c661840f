"""ptrace, by each of its beginnings, of PID 1, of a process of the host and of a child: whose registers are whose rights."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
import signal
NUMBER = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
ATTACH, SEIZE, TRACEME = 16, 0x4206, 0
child = os.fork()
if child == 0:
    time.sleep(10)
    os._exit(0)
answers = [call(NUMBER, how, pid, 0, 0) for pid in [*PIDS, child] for how in (SEIZE, ATTACH)]
os.kill(child, signal.SIGKILL)
say(answers=answers)
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "a process was traced") if "done" in answers else ("BLOCKED", f"ptrace: {sorted(set(answers))}")
