"""Credentials where they always stand: of clouds, git, browsers, ssh, gpg, and of inbounds itself; every home is gone through."""

CLASS = "secrets"
REQUIREMENT = "F1"
NEEDS = ("secret",)
SOURCE = r"""
import re
found = {}
for top in TOPS:
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if os.path.join(directory, name) != sys.base_prefix]
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.isfile(path):
                continue
            try:
                text = open(path, errors="replace").read(100_000)
            except OSError:
                continue
            match = re.search(r"inbounds-drill-\w{32}", text)
            if match:
                found[path] = match[0]
say(found=found)
"""
CONTROL = 'TOPS = [HOST["home"]]\n' + SOURCE
ATTACK = (
    """
TOPS = [HOST["home"], "/root", "/var", "/mnt", "/srv", "/opt", "/tmp", "/run", "/etc"]
TOPS += [f"/home/{name}" for name in os.listdir("/home") if name != "agent"]
"""
    + SOURCE
)


def observe(_, after):
    if after["leaked"] or after["said"]["found"]:
        return "ESCAPED", f"read: {', '.join(after['said']['found'])}"
    return "BLOCKED", "no credential of the operator's is there"
