"""A binary that was written is executed, from every place that can be written to, by its name and by a descriptor."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import shutil, tempfile
places = {WORK, "/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"], "/run/inbounds/unlisted", "/dev/mqueue", "/run/user/1000"}
ran, refused = [], set()
for place in sorted(places):
    path = place + "/inbounds-drill-" + HOST["token"]
    try:
        shutil.copy("/bin/true", path)
        os.chmod(path, 0o755)
    except OSError:
        continue
    for how in ("name", "descriptor"):
        pid = os.fork()
        if pid == 0:
            try:
                os.execve(path if how == "name" else os.open(path, os.O_RDONLY), ["true"], {})
            except OSError as error:
                os._exit(100 + error.errno)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ran += [f"{place} by {how}"] if code == 0 else []
        refused.add(errno.errorcode.get(code - 100, str(code)))
    os.unlink(path)
say(ran=ran, refused=sorted(refused))
"""
ATTACK = CONTROL


def observe(_, after):
    ran = after["said"]["ran"]
    return ("ESCAPED", f"executed: {', '.join(ran)}") if ran else ("BLOCKED", f"execve: {after['said']['refused']}")
