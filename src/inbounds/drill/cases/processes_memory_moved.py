"""Memory policies of another process: move_pages and migrate_pages tell where its pages are, process_madvise drops them."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
NUMBERS = {"x86_64": (279, 256), "aarch64": (239, 238)}[os.uname().machine]
mask = ctypes.c_ulong(1)
answers = []
for pid in PIDS:
    answers += [call(NUMBERS[0], pid, 0, 0, 0, 0, 0), call(NUMBERS[1], pid, 64, ctypes.byref(mask), ctypes.byref(mask))]
    answers.append(call(312, pid, os.getpid(), 0, 0, 0) if os.uname().machine == "x86_64" else call(272, pid, os.getpid(), 0))
say(answers=answers)
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "it was reached") if "done" in answers else ("BLOCKED", f"they say: {sorted(set(answers))}")
