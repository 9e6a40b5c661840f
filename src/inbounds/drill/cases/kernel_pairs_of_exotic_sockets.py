"""socketpair makes two sockets of any family before it says that they have no pairs: what a filter of socket() forgets."""

CLASS = "kernel"
REQUIREMENT = "F5"
SOURCE = """
NUMBER = {"x86_64": 53, "aarch64": 199}[os.uname().machine]
pair = (ctypes.c_int * 2)()
answers = {str(family): call(NUMBER, family, kind, 0, pair) for family in FAMILIES for kind in (1, 2, 3)}
say(reached=[family for family, answer in answers.items() if answer in ("done", "ENOTSUP", "EOPNOTSUPP")], answers=answers)
"""
CONTROL = "FAMILIES = (2, 10, 16)  # what is there already: no module is loaded for a control\n" + SOURCE
ATTACK = "FAMILIES = range(2, 47)\n" + SOURCE


def observe(_, after):
    reached = after["said"]["reached"]
    if reached:
        return "ESCAPED", f"families whose sockets were made: {', '.join(reached)}"
    return "BLOCKED", f"socketpair: {', '.join(sorted(set(after['said']['answers'].values())))}"
