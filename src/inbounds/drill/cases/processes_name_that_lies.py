"""Memory is counted from /proc/PID/status, where a process writes its own name: one that reads as a figure, one no text."""

CLASS = "processes"
REQUIREMENT = "F7"
LIMITS = {"memory_bytes": 200 << 20}
CONTROL = r"""
import mmap
say(begun=True)
SIZE = HOST["limits"]["memory_bytes"] * 3 // 10
children = []
for name in (b"RssAnon: 0", b"RssShmem: 0", b"RssAnon:\t0 kB", b"\xff\xfe", b"x\nRssAnon:\t0", b") R 1 1"):
    pid = os.fork()
    if pid == 0:
        libc.prctl(15, name, 0, 0, 0)
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED if b"Shmem" in name else mmap.MAP_PRIVATE)
        for page in range(0, SIZE, 4096):
            memory[page] = 1
        time.sleep(8)
        os._exit(0)
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
