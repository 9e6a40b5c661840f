"""A crash starts core_pattern's program outside, as root, on what the crashed left (CVE-2025-5054): a dump is asked for."""

CLASS = "kernel"
REQUIREMENT = "F1"
CONTROL = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
if not open("/proc/sys/kernel/core_pattern").read().startswith("|"):  # a program is started in spite of the limit 0
    outcome(lambda: resource.setrlimit(resource.RLIMIT_CORE, [resource.getrlimit(resource.RLIMIT_CORE)[1]] * 2))
pid = os.fork()
if pid == 0:
    os.abort()
status = os.waitpid(pid, 0)[1]
say(dumped=os.WCOREDUMP(status), limit=resource.getrlimit(resource.RLIMIT_CORE))
"""
ATTACK = CONTROL


def observe(_, after):
    if after["said"]["dumped"]:
        return "ESCAPED", "the kernel has handed a dump on"
    return "BLOCKED", f"no dump; limit {after['said']['limit']} (1: no program is started either)"
