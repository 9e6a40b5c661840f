"""`git` itself as the way out: a remote on the host, over http and over git's own protocol."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
tried = {}
for scheme in ("http", "git"):
    url = f"{scheme}://127.0.0.1:{HOST['port']}/x.git"
    try:
        done = subprocess.run(["git", "ls-remote", url], capture_output=True, timeout=10)
        tried[scheme] = done.stderr.decode(errors="replace").strip()[-80:]
    except subprocess.TimeoutExpired:
        tried[scheme] = "no answer"
say(**tried)
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
