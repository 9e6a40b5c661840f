"""/proc/PID/mem of whatever process can be named: what it holds is looked through for credentials."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = r"""
import re
answers = []
for pid in PIDS:
    def search():
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in open(f"/proc/{pid}/maps"):
                first, last, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
                if not rights.startswith("rw"):
                    continue
                memory.seek(int(first, 16))
                found = re.search(rb"inbounds-drill-\w{32}", memory.read(int(last, 16) - int(first, 16)))
                if found:
                    say(found=found[0].decode())
                    return
    answers.append(outcome(search))
say(answers=answers)
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "a secret was found in another process's memory"
    return "BLOCKED", f"open: {', '.join(after['said']['answers'])}"
