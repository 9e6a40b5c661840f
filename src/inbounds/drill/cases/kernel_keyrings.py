"""Kernel keyrings are in no namespace of a jail's: add_key, request_key (which starts a program as root) and keyctl."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
ADD, REQUEST, KEYCTL = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}[os.uname().machine]
answers = [call(ADD, b"user", b"inbounds-drill", b"x", 1, -2), call(KEYCTL, 0, -3, 1), call(KEYCTL, 1, 0)]
say(answers=answers + [call(REQUEST, b"user", b"inbounds-drill-none", None, 0)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "keys can be made") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
