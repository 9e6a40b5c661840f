"""A process of the host is stopped or killed by its number: the supervisor, a gateway, a logger."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
CONTROL = """
import signal
answers = [outcome(os.kill, HOST["victim"], number) for number in (signal.SIGSTOP, signal.SIGTERM)]
say(answers=answers)
time.sleep(0.2)
"""
ATTACK = CONTROL


def observe(_, after):
    if not after["victim_alive"]:
        return "ESCAPED", "the process of the host was hit"
    return "BLOCKED", f"kill: {', '.join(after['said']['answers'])}"
