"""At the deadline: processes that ignore every signal they may, in sessions of their own, and some that have stopped
themselves.
"""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E1"
DEADLINE_S = 1
CONTROL = """
import signal
for number in range(8):
    if os.fork() == 0:
        os.setsid()
        for name in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(name, signal.SIG_IGN)
        if number % 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(20)
        os._exit(0)
say(made=8)
time.sleep(20)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many are there behind the deadline; outside nobody but the drill ends them."""
    alive, end = after["alive"], after["exit"]
    words = f"{alive} of 9 alive behind the deadline, ended as {end['reason']} after {after['ms']} ms"
    return ("ESCAPED" if alive else "BLOCKED"), words
