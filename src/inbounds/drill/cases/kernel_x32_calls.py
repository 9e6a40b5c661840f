"""The x32 ABI: the same calls under numbers with another bit, which many filters forget (NO CONTROL where it is not built)."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
X32 = 0x40000000
say(answers=[call(X32 + 39), call(X32 + 272, 0x10000000), call(X32 + 521, 0)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "x32 is answered") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
