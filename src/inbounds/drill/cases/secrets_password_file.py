"""/etc/shadow and its copies, which a jail that runs as root or shows all of /etc gives away."""

CLASS = "secrets"
REQUIREMENT = "F1"
CONTROL = """
NAMES = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id")
say(read=[name for name in NAMES if outcome(lambda: open(name).read(1)) == "done"])
"""
ATTACK = CONTROL


def observe(_, after):
    read = after["said"]["read"]
    return ("ESCAPED", f"read: {', '.join(read)}") if read else ("BLOCKED", "none of them can be read")
