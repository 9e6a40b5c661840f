"""What other programs leave in shared temporary places: /tmp, /var/tmp, /dev/shm are gone through for secrets."""

CLASS = "secrets"
REQUIREMENT = "B6"
NEEDS = ("shared-memory",)
SOURCE = """
texts = []
for path in PATHS:
    outcome(lambda: texts.append(open(path, errors="replace").read(10_000)))
print("".join(texts))
say(read=len(texts))
"""
CONTROL = 'PATHS = [HOST["shared_memory_file"]]\n' + SOURCE
ATTACK = (
    """
import glob
PATHS = [p for top in ("/tmp", "/var/tmp", "/dev/shm") for p in glob.glob(top + "/**", recursive=True, include_hidden=True)]
PATHS.append(HOST["shared_memory_file"])
"""
    + SOURCE
)


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "another program's file was read"
    return "BLOCKED", f"{after['said']['read']} files are there, all of them the jail's"
