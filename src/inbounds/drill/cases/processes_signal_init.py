"""PID 1 enforces deadline and memory: every signal is sent to it, and the jail must still be there."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
import signal
answers = {outcome(os.kill, PID, number) for number in range(1, 65) if number != signal.SIGCONT}
time.sleep(0.3)
try:
    alive = open(f"/proc/{PID}/stat").read().rpartition(")")[2].split()[0] not in "ZTX"
except OSError:
    alive = False
say(answers=sorted(answers), alive=alive)
"""
CONTROL = 'PID = HOST["victim"]\n' + SOURCE
ATTACK = "PID = 1\n" + SOURCE


def observe(_, after):
    if after["exit"]["reason"] != "exited" or not after["said"]["alive"]:
        return "ESCAPED", "it was stopped or ended"
    return "BLOCKED", f"kill: {', '.join(after['said']['answers'])}; it lives"
