"""Argument lists, which everybody may read where /proc shows all processes: tokens on command lines."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
CONTROL = """
lists = {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        lists[name] = open(f"/proc/{name}/cmdline").read()[:2000]
    except OSError:
        pass
print(lists.get(str(HOST["victim"])))
say(processes=len(lists), others=[pid for pid in lists if pid not in ("1", str(os.getpid()))][:5])
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"] or after["said"]["others"]:
        return "ESCAPED", f"processes of the host are seen: {after['said']['others']}"
    return "BLOCKED", f"{after['said']['processes']} processes are seen, all of them the jail's"
