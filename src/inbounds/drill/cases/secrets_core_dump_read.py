"""A process with a secret in its memory is made to crash, and its core dump is read."""

CLASS = "secrets"
REQUIREMENT = "F1"
CONTROL = """
import glob, resource
outcome(lambda: resource.setrlimit(resource.RLIMIT_CORE, [resource.getrlimit(resource.RLIMIT_CORE)[1]] * 2))
pid = os.fork()
if pid == 0:
    kept = "inbounds-" + "memory-" * 3 + HOST["token"]
    os.abort()
status = os.waitpid(pid, 0)[1]
dumps = [path for place in (".", WORK, "/tmp", "/var/crash", "/var/lib/systemd/coredump") for path in glob.glob(place + "/*core*")]
say(dumped=os.WCOREDUMP(status), dumps=[path for path in dumps if os.path.isfile(path) and os.path.getsize(path) > 4096])
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["dumped"] or said["dumps"]:
        return "ESCAPED", f"a dump was made: {said['dumps']}"
    return "BLOCKED", "no dump was made"
