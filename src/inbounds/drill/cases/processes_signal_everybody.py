"""kill(-1): every process that may be signalled, without knowing one number (outside, the drill's own victim alone)."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
CONTROL = """
import signal
say(killed=outcome(os.kill, HOST["victim"], signal.SIGKILL))
time.sleep(0.2)
"""
ATTACK = """
import signal
subprocess.Popen(["sleep", "10"])
answers = {outcome(os.kill, -1, number) for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL)}
say(killed=", ".join(sorted(answers)))
time.sleep(0.2)
"""


def observe(_, after):
    if not after["victim_alive"]:
        return "ESCAPED", "processes of the host were hit"
    return "CONTAINED", f"the jail's own were hit (kill: {after['said']['killed']})"
