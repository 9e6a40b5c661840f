"""userfaultfd stops the kernel in the middle of a copy for as long as one likes: what turns races into certainties."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
NUMBER = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
answers = [call(NUMBER, flags) for flags in (0, 1, os.O_CLOEXEC | 1)]
answers.append(outcome(lambda: os.close(os.open("/dev/userfaultfd", os.O_RDWR))))
say(answers=answers)
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "one was made") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
