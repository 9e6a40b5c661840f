"""Control groups: out of one's own group, into the root's, or a release_agent for the kernel to start (CVE-2022-0492)."""

CLASS = "processes"
REQUIREMENT = "F1"
SOURCE = """
import glob
PATTERNS = ("cgroup.procs", "*/cgroup.procs", "*/release_agent", "*/tasks", "*/memory.limit_in_bytes", "cgroup.subtree_control")
files = [path for pattern in PATTERNS for path in glob.glob("/sys/fs/cgroup/" + pattern)]
seen = [path for path in files if outcome(lambda: os.close(os.open(path, os.O_WRONLY))) == "done"]
os.makedirs(WORK + "/groups", exist_ok=True)
def mount(kind, options):
    if libc.mount(b"none", (WORK + "/groups").encode(), kind, 0, options):
        raise OSError(ctypes.get_errno(), "mount")
say(opened=seen, mounted=[outcome(mount, b"cgroup2", None)])
"""
CONTROL = (
    """
if libc.unshare(0x10000000 | 0x20000 | 0x2000000):  # where anybody may mount them, and the operator sees nothing of it
    sys.exit("no namespaces here")
"""
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    if after["said"]["opened"] or "done" in after["said"]["mounted"]:
        return "ESCAPED", f"opened {after['said']['opened'][:3]}, mounted {after['said']['mounted']}"
    return "BLOCKED", f"no such file; mount: {', '.join(after['said']['mounted'])}"
