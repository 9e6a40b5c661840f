"""A process whose first thread has ended shows no memory in /proc/PID/status, and its other threads hold it all."""

CLASS = "processes"
REQUIREMENT = "F7"
LIMITS = {"memory_bytes": 200 << 20}
CONTROL = """
import mmap, threading
say(begun=True)
SIZE = HOST["limits"]["memory_bytes"] * 3 // 10
EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
children = []
def hold(memory):
    time.sleep(0.2)
    for page in range(0, SIZE, 4096):
        memory[page] = 1
    time.sleep(8)
    os._exit(0)
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=hold, args=(mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE),)).start()
        libc.syscall(EXIT, 0)
    children.append(pid)
time.sleep(5)
say(held=sum(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in children))
for pid in children:
    os.kill(pid, 9)
"""
ATTACK = CONTROL


def observe(_, after):
    reason = after["exit"]["reason"]
    if reason == "exited" and after["said"]["held"] == 6:
        return "ESCAPED", "six processes held more memory together than the limit"
    if reason not in ("memory", "exited"):
        return "ESCAPED", f"the jail's PID 1 was lost: {reason}"
    return "BLOCKED", f"ended by {reason}"
