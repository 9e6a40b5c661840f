"""chroot and pivot_root: another root directory, and with it another /etc/passwd, another sudo, a way out by descriptor."""

CLASS = "processes"
REQUIREMENT = "F1"
SOURCE = """
PIVOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
say(answers=[call(PIVOT, b".", b"."), outcome(os.chroot, WORK)])
"""
CONTROL = (
    """
if libc.unshare(0x10000000 | 0x20000):
    sys.exit("no namespaces here")
"""
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "the root was changed") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
