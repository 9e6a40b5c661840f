"""A key of the operator's in the kernel's keyring (Kerberos tickets, disk passwords): listed in /proc/keys, then read."""

CLASS = "secrets"
REQUIREMENT = "G1"
NEEDS = ("key",)
CONTROL = """
KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
READ, SEARCH, USER_KEYRING = 11, 10, -4
buffer = ctypes.create_string_buffer(1000)
answers = [call(KEYCTL, READ, HOST["key"], buffer, 1000)]
answers.append(call(KEYCTL, SEARCH, USER_KEYRING, b"user", b"inbounds-drill-" + HOST["token"].encode(), 0))
print(buffer.value.decode("ascii", "replace"))
say(answers=answers, listed="inbounds-drill-" + HOST["token"] in open("/proc/keys").read())
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"] or after["said"]["listed"]:
        return "ESCAPED", "the key was seen"
    return "BLOCKED", f"keyctl: {', '.join(after['said']['answers'])}; not listed"
